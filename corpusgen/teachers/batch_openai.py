"""OpenAI's Batch API, and those that speak it: a file of requests goes up, a file of answers comes down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from corpusgen.errors import InvalidAnswer, TeacherError
from corpusgen.records import Request
from corpusgen.teachers.batches import (
    BatchResult,
    BatchState,
    Limits,
    Outcome,
    Search,
    Wired,
    key_of,
    lines_of,
    provider_name,
    readable,
    sdk_errors,
    surely_nothing,
)

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

LIMITS: Final = Limits(lines=50_000, size_bytes=200_000_000)
NAME: Final = "corpusgen"
"""The key under which a batch's metadata holds our name for it."""
TIMEOUT_S: Final = 120.0
UPLOAD_S: Final = 900.0
CLOCKS_APART: Final = timedelta(hours=1)
_PAGE: Final = 100

_STAGES: Final[dict[str, Literal["working", "ended", "failed"]]] = {
    "failed": "failed",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
}
_CUT_SHORT: Final[dict[str, Outcome]] = {"expired": "expired", "cancelled": "canceled"}
_CODES: Final[dict[str, Outcome]] = {"batch_expired": "expired", "batch_cancelled": "canceled"}


def connect_batches(teacher: Wired) -> OpenAIBatches:
    """The batches of an OpenAI-compatible teacher."""
    return OpenAIBatches(teacher=teacher)


@dataclass(kw_only=True)
class OpenAIBatches:
    """Files and batches of one account."""

    teacher: Wired
    limits: Limits = LIMITS
    _client: openai.AsyncOpenAI | None = field(default=None, repr=False)

    def line(self, custom_id: str, request: Request) -> bytes:
        """One line of the file of requests."""
        path, body = self.teacher.wire(request)
        head = {"custom_id": custom_id, "method": "POST", "url": f"/v1{path}"}
        return orjson.dumps({**head, "body": orjson.Fragment(body)})

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Upload the file, then make the batch of it. A file without a batch costs nothing."""
        file_id = await self._upload(name, lines)
        endpoint: Any = orjson.loads(lines[0])["url"]
        try:
            with self._errors():
                made = await self._open().batches.create(
                    input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata={NAME: name}
                )
                return provider_name(made.id)
        except TeacherError as error:
            error.billable = not surely_nothing(error)
            raise

    async def _upload(self, name: str, lines: Sequence[bytes]) -> str:
        file = (f"{name}.jsonl", b"\n".join(lines) + b"\n")
        try:
            with self._errors():
                made = await self._open().files.create(file=file, purpose="batch", timeout=UPLOAD_S)
                return provider_name(made.id)
        except TeacherError as error:
            error.billable = False
            raise

    async def find(self, name: str, lines: int, since: datetime, known: frozenset[str]) -> Search:
        """The batches whose metadata says the name."""
        found, last = [], None
        while True:
            with self._errors():
                page = await self._page(last)
                found += [provider_name(batch.id) for batch in page if (batch.metadata or {}).get(NAME) == name]
                if page and page[-1].id == last:
                    raise InvalidAnswer(f"the list of batches at {self.teacher.transport.base_url} has no end")
                old = [batch for batch in page if batch.created_at < (since - CLOCKS_APART).timestamp()]
            # Newest first; nothing says so for every server, so a page is the end only if all of it is older.
            if len(old) == len(page):
                return Search(found=tuple(found))
            last = page[-1].id

    async def _page(self, after: str | None) -> list[Batch]:
        import openai

        page = await self._open().batches.list(limit=_PAGE, after=openai.omit if after is None else after)
        return list(page.data)

    async def poll(self, provider_id: str) -> BatchState:
        """How far a batch is."""
        with self._errors():
            batch = await self._open().batches.retrieve(provider_id)
            counts = batch.request_counts
            return BatchState(
                stage=_STAGES.get(batch.status, "working"),
                word=batch.status,
                total=counts.total if counts else 0,
                answered=counts.completed if counts else 0,
                why=_mistakes(batch),
                cut_short=_CUT_SHORT.get(batch.status),
            )

    async def results(self, provider_id: str) -> AsyncIterator[BatchResult]:
        """The lines of both files, answers and errors."""
        with self._errors():
            batch = await self._open().batches.retrieve(provider_id)
            files = [provider_name(name) for name in (batch.output_file_id, batch.error_file_id) if name]
            for file_id in files:
                async with self._open().files.with_streaming_response.content(file_id) as response:
                    async for line in lines_of(response.iter_bytes(), self.teacher.transport):
                        if (result := readable(line, read_line)) is not None:
                            yield result

    async def cancel(self, provider_id: str) -> None:
        """Ask that a batch be ended."""
        with self._errors():
            await self._open().batches.cancel(provider_id)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _errors(self) -> Any:
        import openai

        return sdk_errors(openai, self.teacher.transport)

    def _open(self) -> openai.AsyncOpenAI:
        if self._client is None:
            import openai

            transport = self.teacher.transport
            self._client = openai.AsyncOpenAI(
                api_key=key_of(transport),
                base_url=transport.base_url,
                default_headers=dict(transport.headers),
                max_retries=0,
                timeout=TIMEOUT_S,
                # As on the way of single calls: no redirect to somebody the policy never judged, no proxy it ignores.
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=False),
            )
        return self._client


def read_line(line: bytes) -> BatchResult:
    """One line of a file of results. Raises InvalidAnswer for what is none."""
    try:
        said = orjson.loads(line)
        custom_id, response, error = said["custom_id"], said.get("response"), said.get("error")
        if response is not None and response["status_code"] == 200:
            outcome: Outcome = "answered"
        else:
            outcome = _CODES.get((error or {}).get("code") or "", "errored")
        return BatchResult(
            custom_id=str(custom_id),
            outcome=outcome,
            body=orjson.dumps(response["body"]) if response is not None else b"",
            status=int(response["status_code"]) if response is not None else None,
            message=_message(response, error),
            request_id=(response or {}).get("request_id"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidAnswer(f"a line of the results is none ({type(error).__name__}): {line[:200]!r}") from error


def _message(response: Any, error: Any) -> str:
    found = error or ((response or {}).get("body") or {}).get("error") or {}
    return str(found.get("message") or found.get("code") or "")[:500]


def _mistakes(batch: Batch) -> str:
    found = (batch.errors.data if batch.errors else None) or []
    told = [f"line {one.line}: {one.message}" if one.line else str(one.message) for one in found[:3]]
    return "; ".join(told) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
