"""A loopback service that takes batches in both protocols, keeps its own bill, and goes wrong where it is told to."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

INPUT_TOKENS = 20
OUTPUT_TOKENS = 4


@dataclass(kw_only=True)
class Batch:
    """One batch, as the service sees it."""

    id: str
    lines: dict[str, str]
    """Texts by custom id."""
    name: str
    made: float
    seen_from: float
    messages: bool
    ended: bool = False
    canceled: bool = False
    refused: bool = False
    out: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class BatchDouble:
    """Files, batches and a bill. A text that holds ``mark:NAME`` or ``mark:NAME*2`` fares so, always or twice."""

    work_s: float = 0.1
    """How long a batch takes."""
    late_s: float = 0.0
    """How long a new batch is not in the list yet."""
    reply_s: float = 0.0
    """How long the reply to a submission takes after the batch was made."""
    refuse: str = ""
    """Why every batch is refused as a whole."""
    lose_replies: int = 0
    """So many submissions arrive, and their reply is lost."""
    lose_requests: int = 0
    """So many submissions are lost on their way."""
    cut_results: int = 0
    """So many downloads break off in the middle."""
    base_url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    charged: Counter[str] = field(default_factory=Counter)
    """How often each text was charged for."""
    tries: Counter[str] = field(default_factory=Counter)
    live: Counter[str] = field(default_factory=Counter)
    """How often each text was asked by itself."""
    polls: int = 0
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def bill(self) -> dict[str, Any]:
        """What has been charged for, whether or not anybody has asked how the batch is."""
        for batch in self.batches.values():
            self._advance(batch)
        return {
            "charged": dict(self.charged),
            "batches": len(self.batches),
            "names": [batch.name for batch in self.batches.values()],
            "live": dict(self.live),
        }

    def app(self) -> web.Application:
        """The routes of both protocols."""
        app = web.Application(client_max_size=2**28)
        app.add_routes(
            [
                web.post("/v1/files", self.upload),
                web.get("/v1/files/{id}/content", self.content),
                web.post("/v1/batches", self.create),
                web.get("/v1/batches", self.listed),
                web.get("/v1/batches/{id}", self.retrieve),
                web.post("/v1/batches/{id}/cancel", self.cancel),
                web.post("/v1/messages/batches", self.create_messages),
                web.get("/v1/messages/batches", self.list_messages),
                web.get("/v1/messages/batches/{id}", self.retrieve_messages),
                web.get("/v1/messages/batches/{id}/results", self.results_messages),
                web.post("/v1/messages/batches/{id}/cancel", self.cancel_messages),
                web.post("/v1/chat/completions", self.chat),
                web.get("/bill", self.tell),
            ]
        )
        return app

    async def tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.bill())

    async def chat(self, request: web.Request) -> web.Response:
        asked = await request.json()
        text = asked["messages"][-1]["content"]
        self.live[text] += 1
        self.charged[text] += 1
        return web.json_response(completion(text))

    # --- OpenAI ------------------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        name = f"file-{next(self.numbers)}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr] # a file was sent
        return web.json_response(
            {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"}
        )

    async def create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        lines = {}
        for line in self.files[asked["input_file_id"]].splitlines():
            one = orjson.loads(line)
            assert one["url"] == asked["endpoint"]
            lines[one["custom_id"]] = one["body"]["messages"][-1]["content"]
        return await self._made(request, lines, asked["metadata"]["corpusgen"], self.openai)

    async def _made(self, request: web.Request, lines: dict[str, str], name: str, shape: Any) -> web.Response:
        if self.lose_requests:
            self.lose_requests -= 1
            return cut(request)
        now = time.time()
        batch = Batch(
            id=f"b{next(self.numbers)}",
            lines=lines,
            name=name,
            made=now,
            seen_from=now + self.late_s,
            messages=shape == self.anthropic,
        )
        batch.refused = bool(self.refuse)
        self.batches[batch.id] = batch
        if self.lose_replies:
            self.lose_replies -= 1
            return cut(request)
        await asyncio.sleep(self.reply_s)
        return web.json_response(shape(batch))

    async def listed(self, request: web.Request) -> web.Response:
        found, more = self._page(request, request.query.get("after"))
        return web.json_response({"object": "list", "data": [self.openai(one) for one in found], "has_more": more})

    def _page(self, request: web.Request, after: str | None) -> tuple[list[Batch], bool]:
        seen = [batch for batch in self.batches.values() if batch.seen_from <= time.time()][::-1]
        names = [batch.id for batch in seen]
        rest = seen[names.index(after) + 1 :] if after else seen
        most = int(request.query.get("limit", 20))
        return rest[:most], len(rest) > most

    async def retrieve(self, request: web.Request) -> web.Response:
        self.polls += 1
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        return web.json_response(self.openai(batch))

    async def cancel(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        self._advance(batch, canceled=True)
        return web.json_response(self.openai(batch))

    async def content(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        if name.startswith("out-"):
            return await self._download(request, self.batches[name[4:]].out)
        return await self._download(request, self.batches[name[4:]].errors)

    async def _download(self, request: web.Request, lines: list[bytes]) -> web.StreamResponse:
        body = b"".join(line + b"\n" for line in lines)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        if self.cut_results:
            self.cut_results -= 1
            await response.write(body[: len(body) // 2])
            return cut(request)
        await response.write(body)
        return response

    def openai(self, batch: Batch) -> dict[str, Any]:
        """A batch in OpenAI's words."""
        self._advance(batch)
        status = "in_progress"
        if batch.refused:
            status = "failed"
        elif batch.ended:
            status = "cancelled" if batch.canceled else "expired" if batch.counts["expired"] else "completed"
        mistakes = [{"code": "invalid", "line": 1, "message": self.refuse}]
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": int(batch.made),
            "input_file_id": "file-0",
            "status": status,
            "metadata": {"corpusgen": batch.name},
            "errors": {"object": "list", "data": mistakes} if batch.refused else None,
            "output_file_id": f"out-{batch.id}" if batch.out else None,
            "error_file_id": f"err-{batch.id}" if batch.errors else None,
            "request_counts": {
                "total": len(batch.lines),
                "completed": batch.counts["answered"],
                "failed": batch.counts["failed"],
            },
        }

    # --- Anthropic ---------------------------------------------------------------------------------------------------

    async def create_messages(self, request: web.Request) -> web.Response:
        asked = await request.json()
        lines = {one["custom_id"]: one["params"]["messages"][-1]["content"] for one in asked["requests"]}
        lines = {name: text if isinstance(text, str) else text[0]["text"] for name, text in lines.items()}
        return await self._made(request, lines, next(iter(lines)).rpartition("-")[0], self.anthropic)

    async def list_messages(self, request: web.Request) -> web.Response:
        found, more = self._page(request, request.query.get("after_id"))
        names = [batch.id for batch in found] or [""]
        data = [self.anthropic(one) for one in found]
        return web.json_response({"data": data, "has_more": more, "first_id": names[0], "last_id": names[-1]})

    async def retrieve_messages(self, request: web.Request) -> web.Response:
        self.polls += 1
        return web.json_response(self.anthropic(self.batches[request.match_info["id"]]))

    async def cancel_messages(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        self._advance(batch, canceled=True)
        return web.json_response(self.anthropic(batch))

    async def results_messages(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches[request.match_info["id"]]
        return await self._download(request, [*batch.out, *batch.errors])

    def anthropic(self, batch: Batch) -> dict[str, Any]:
        """A batch in Anthropic's words."""
        self._advance(batch)
        counts = batch.counts
        said = {
            "processing": 0 if batch.ended else len(batch.lines),
            "succeeded": counts["answered"],
            "errored": counts["failed"] - counts["expired"] - counts["canceled"],
            "canceled": counts["canceled"],
            "expired": counts["expired"],
        }
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "created_at": datetime.fromtimestamp(batch.made, UTC).isoformat(),
            "expires_at": datetime.fromtimestamp(batch.made + 86400, UTC).isoformat(),
            "request_counts": said,
            "results_url": f"{self.base_url}/messages/batches/{batch.id}/results" if batch.ended else None,
        }

    # --- working -----------------------------------------------------------------------------------------------------

    def _advance(self, batch: Batch, *, canceled: bool = False) -> None:
        """Do the batch's work once its time has come, or give up what is left of it."""
        if batch.ended or batch.refused or (not canceled and time.time() < batch.made + self.work_s):
            return
        batch.ended, batch.canceled = True, canceled
        for at, (name, text) in enumerate(batch.lines.items()):
            mark = "canceled" if canceled and at % 2 else self._mark(text)
            self._one(batch, name, text, mark)

    def _mark(self, text: str) -> str:
        self.tries[text] += 1
        for word in text.split():
            if word.startswith("mark:"):
                name, _, times = word.removeprefix("mark:").rstrip(".").partition("*")
                if not times or self.tries[text] <= int(times):
                    return name
        return ""

    def _one(self, batch: Batch, name: str, text: str, mark: str) -> None:
        messages = batch.messages
        if mark == "silent":  # cut short, and nothing is said of it
            batch.counts["failed"] += 1
            batch.counts["expired"] += 1
            return
        failed = {"refused": 400, "fault": 500, "expired": 0, "canceled": 0}.get(mark)
        if failed is not None:
            batch.counts["failed"] += 1
            batch.counts[mark] += 1
            batch.errors.append(orjson.dumps(error_line(name, mark, failed, messages)))
            return
        self.charged[text] += 1
        batch.counts["answered"] += 1
        if mark == "missing":
            batch.counts["answered"] -= 1
            return
        line = orjson.dumps(answer_line(name, text, mark, messages))
        if mark == "garbage":
            line = b'{"custom_id": ' + line[:20]
            batch.counts["answered"] -= 1
        batch.out += [line, line] if mark == "twice" else [line]
        if mark == "twice":
            batch.out.append(orjson.dumps(answer_line("somebody-else-7", text, "", messages)))


def completion(text: str, mark: str = "") -> dict[str, Any]:
    """An answer in OpenAI's words."""
    out = 10**6 if mark == "overrun" else OUTPUT_TOKENS
    message = {"role": "assistant", "content": f"about {text[-12:]}"}
    return {
        "id": f"c-{abs(hash(text))}",
        "object": "chat.completion",
        "model": "m",
        "service_tier": "default",
        "choices": [] if mark == "invalid" else [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": out, "total_tokens": INPUT_TOKENS + out},
    }


def message(text: str, mark: str = "") -> dict[str, Any]:
    """An answer in Anthropic's words."""
    out = 10**6 if mark == "overrun" else OUTPUT_TOKENS
    return {
        "id": f"msg-{abs(hash(text))}",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": None if mark == "invalid" else [{"type": "text", "text": f"about {text[-12:]}"}],
        "stop_reason": None if mark == "invalid" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": out, "service_tier": "batch"},
    }


def answer_line(name: str, text: str, mark: str, messages: bool) -> dict[str, Any]:
    if messages:
        return {"custom_id": name, "result": {"type": "succeeded", "message": message(text, mark)}}
    reply = {"status_code": 200, "request_id": f"r-{name}", "body": completion(text, mark)}
    return {"id": f"l-{name}", "custom_id": name, "response": reply, "error": None}


def error_line(name: str, mark: str, status: int, messages: bool) -> dict[str, Any]:
    if messages:
        kind = {"refused": "invalid_request_error", "fault": "api_error"}.get(mark)
        error = {"type": "error", "error": {"type": kind, "message": "no"}}
        result = {"type": "errored", "error": error} if kind else {"type": mark}
        return {"custom_id": name, "result": result}
    if status:
        reply = {"status_code": status, "request_id": f"r-{name}", "body": {"error": {"message": "no"}}}
        return {"id": f"l-{name}", "custom_id": name, "response": reply, "error": None}
    code = {"expired": "batch_expired", "canceled": "batch_cancelled"}[mark]
    return {"id": f"l-{name}", "custom_id": name, "response": None, "error": {"code": code, "message": "too late"}}


def cut(request: web.Request) -> web.Response:
    """No answer: the connection breaks."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def batch_double(double: BatchDouble) -> AsyncIterator[BatchDouble]:
    """The running service; leaving the block ends it."""
    runner = web.AppRunner(double.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr] # aiohttp tells the port nowhere else
    double.base_url = f"http://127.0.0.1:{port}/v1"
    try:
        yield double
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
