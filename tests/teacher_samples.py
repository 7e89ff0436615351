"""Requests, replies and a loopback server that misbehaves on demand, for the tests of teachers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from corpusgen.records import Message, Request
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.transport import Transport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TickingClock:
    """A clock that moves one second with each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def request(text: str = "a swan", *, api: Any = "completion", **parameters: Any) -> Request:
    return Request(
        teacher="test@http://localhost",
        model="m",
        api=api,
        messages=(Message(role="user", content=text),),
        parameters={"max_tokens": 1, **parameters},
    )


def spec(name: str = "endpoint/m", **fields: Any) -> TeacherSpec:
    return TeacherSpec.model_validate({"name": name, "parameters": {"max_tokens": 1}, **fields})


def reply(choice: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A well-formed completion, with what a test changes in it."""
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    choices = [{"text": " animal", "finish_reason": "stop", **(choice or {})}]
    return {"id": "answer-1", "model": "m-1", "choices": choices, "usage": usage} | fields


def chat_reply(message: dict[str, Any] | None = None, finish_reason: Any = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "animal"} | (message or {}), "finish_reason": finish_reason}
    return reply(**{"choices": [choice], **fields})


def response(text: str = "animal", *items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A well-formed answer of OpenAI's Responses."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 3,
        "output_tokens": 1,
        "total_tokens": 4,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m-1",
        "error": None,
    }
    whole |= {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {**whole, "output": [*items, message], "usage": usage, **fields}


def claude(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A well-formed answer of Anthropic's Messages."""
    content = list(blocks) or [{"type": "text", "text": "animal"}]
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": content}
    usage = {"input_tokens": 3, "output_tokens": 1}
    return {**whole, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **fields}


def every_format(**changes: Any) -> Handler:
    """A server that answers each path in its own wire format, a label with log-probabilities where there are any."""
    both = chat_reply({"content": "animal"}) | {"id": "x"}
    both["choices"][0] |= {"text": " animal", "logprobs": ranked((" animal", -0.5), (" food", -1.5))}
    told = response()
    told["output"][0]["content"][0]["logprobs"] = both["choices"][0]["logprobs"]["content"]
    bodies = {"completions": both, "responses": told, "messages": claude()}

    async def handler(asked: web.Request) -> web.Response:
        # In a cloud the path ends with the model and what is wanted of it.
        body = {**bodies.get(asked.path.rpartition("/")[2], bodies["messages"]), **changes}
        return web.Response(body=orjson.dumps(body), headers={"x-request-id": "req-1"})

    return handler


def ranked(*tokens: tuple[str, float]) -> dict[str, Any]:
    """Log-probabilities of one position, in the shape of OpenAI's chat."""
    entries = [{"token": token, "bytes": list(token.encode()), "logprob": logprob} for token, logprob in tokens]
    return {"content": [{**entries[0], "top_logprobs": entries}]}


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """The base URL of a loopback server on which every path is answered by the handler."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def transport(handler: Handler, **fields: Any) -> AsyncIterator[Transport]:
    async with server(handler) as url:
        opened = Transport(base_url=url, clock=TickingClock(), **fields)
        try:
            yield opened
        finally:
            await opened.aclose()


def answers(status: int = 200, body: Any = None, **headers: str) -> Handler:
    """A handler that always gives the same answer."""
    raw = body if isinstance(body, bytes) else orjson.dumps(reply() if body is None else body)

    async def handler(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=raw, headers=named)

    return handler
