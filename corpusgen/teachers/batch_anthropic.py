"""Anthropic's Message Batches. They bear no name of ours, but every request in one does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

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
    import anthropic
    from anthropic.types.messages import MessageBatch

LIMITS: Final = Limits(lines=100_000, size_bytes=256_000_000)
TIMEOUT_S: Final = 120.0
UPLOAD_S: Final = 900.0
CLOCKS_APART: Final = timedelta(hours=1)
_PAGE: Final = 100
_OUTCOMES: Final[dict[str, Outcome]] = {
    "succeeded": "answered",
    "errored": "errored",
    "expired": "expired",
    "canceled": "canceled",
}

_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that a call by itself would have had."""


def connect_batches(teacher: Wired) -> AnthropicBatches:
    """The batches of a teacher that speaks Messages."""
    return AnthropicBatches(teacher=teacher)


@dataclass(kw_only=True)
class AnthropicBatches:
    """Message batches of one workspace."""

    teacher: Wired
    limits: Limits = LIMITS
    _client: anthropic.AsyncAnthropic | None = field(default=None, repr=False)

    def line(self, custom_id: str, request: Request) -> bytes:
        """One request of a batch."""
        _, body = self.teacher.wire(request)
        return orjson.dumps({"custom_id": custom_id, "params": orjson.Fragment(body)})

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Make a batch of these requests."""
        from anthropic.types.messages import MessageBatch

        try:
            with self._errors():
                # By its path and as it is: the typed call would walk through every request first.
                made = await self._open().post(
                    "/v1/messages/batches",
                    cast_to=MessageBatch,
                    body={"requests": [orjson.loads(line) for line in lines]},
                    options={"timeout": UPLOAD_S},
                )
                return provider_name(made.id)
        except TeacherError as error:
            error.billable = not surely_nothing(error)
            raise

    async def find(self, name: str, lines: int, since: datetime, known: frozenset[str]) -> Search:
        """The batches whose requests bear the name, which shows in their results.

        Whether a batch that still runs is ours only its size can rule out.
        """
        found, perhaps = [], []
        for batch in await self._made_since(since - CLOCKS_APART, known):
            if _total(batch) == lines:
                if batch.processing_status != "ended":
                    perhaps.append(provider_name(batch.id))
                elif await self._bears(batch.id, name):
                    found.append(provider_name(batch.id))
        return Search(found=tuple(found), perhaps=tuple(perhaps))

    async def _made_since(self, since: datetime, known: frozenset[str]) -> list[MessageBatch]:
        import anthropic

        made: list[MessageBatch] = []
        after: Any = anthropic.omit
        while True:
            with self._errors():
                page = await self._open().messages.batches.list(limit=_PAGE, after_id=after)
                if page.data and page.data[-1].id == after:
                    raise InvalidAnswer(f"the list of batches at {self.teacher.transport.base_url} has no end")
                young = [batch for batch in page.data if batch.created_at >= since]
                made += [batch for batch in young if batch.id not in known]
                # Newest first; nothing promises it, so a page is the end only if all of it is older.
                if not young or not page.has_more:
                    return made
                after = page.data[-1].id

    async def _bears(self, provider_id: str, name: str) -> bool:
        async for result in self.results(provider_id):
            return result.custom_id.startswith(f"{name}-")
        return False

    async def poll(self, provider_id: str) -> BatchState:
        """How far a batch is."""
        with self._errors():
            batch = await self._open().messages.batches.retrieve(provider_id)
            counts = batch.request_counts
            ended = batch.processing_status == "ended"
            cut_short: Outcome | None = "canceled" if counts.canceled else "expired" if counts.expired else None
            return BatchState(
                stage="ended" if ended else "working",
                word=batch.processing_status,
                total=_total(batch),
                answered=counts.succeeded,
                cut_short=cut_short,
            )

    async def results(self, provider_id: str) -> AsyncIterator[BatchResult]:
        """The lines of the results."""
        from anthropic._decoders.jsonl import AsyncJSONLDecoder

        with self._errors():
            # By its path: the address that the batch names might be somebody else's, and the key would go there.
            decoder = await self._open().get(
                f"/v1/messages/batches/{provider_id}/results", cast_to=AsyncJSONLDecoder[object], stream=True
            )
            try:
                async for line in lines_of(decoder.http_response.aiter_bytes(), self.teacher.transport):
                    if (result := readable(line, read_line)) is not None:
                        yield result
            finally:
                await decoder.close()

    async def cancel(self, provider_id: str) -> None:
        """Ask that a batch be ended."""
        with self._errors():
            await self._open().messages.batches.cancel(provider_id)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _errors(self) -> Any:
        import anthropic

        return sdk_errors(anthropic, self.teacher.transport)

    def _open(self) -> anthropic.AsyncAnthropic:
        if self._client is None:
            import anthropic

            transport = self.teacher.transport
            self._client = anthropic.AsyncAnthropic(
                api_key=key_of(transport),
                base_url=transport.base_url.removesuffix("/v1"),
                default_headers=dict(transport.headers),
                max_retries=0,
                timeout=TIMEOUT_S,
                # As on the way of single calls: no redirect to somebody the policy never judged, no proxy it ignores.
                http_client=anthropic.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=False),
            )
        return self._client


def read_line(line: bytes) -> BatchResult:
    """One line of the results. Raises InvalidAnswer for what is none."""
    try:
        said = orjson.loads(line)
        result = said["result"]
        outcome = _OUTCOMES[result["type"]]
        error = (result.get("error") or {}).get("error") or {}
        return BatchResult(
            custom_id=str(said["custom_id"]),
            outcome=outcome,
            body=orjson.dumps(result["message"]) if outcome == "answered" else b"",
            status=_STATUSES.get(str(error.get("type")), 500) if outcome == "errored" else None,
            message=str(error.get("message") or error.get("type") or "")[:500],
            request_id=(result.get("error") or {}).get("request_id"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidAnswer(f"a line of the results is none ({type(error).__name__}): {line[:200]!r}") from error


def _total(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
