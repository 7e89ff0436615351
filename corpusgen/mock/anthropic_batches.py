"""Anthropic's Message Batches: ``/v1/messages/batches``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from corpusgen.mock import batch_faults
from corpusgen.mock.anthropic_messages import MESSAGES
from corpusgen.mock.http import Heard, Told, json_told
from corpusgen.mock.jobs import ENDED, Clerk, Job, Line, NewId, Pace, Result, State, new_job, page, spoilt_results
from corpusgen.mock.plan import marks_in
from corpusgen.mock.question import NotARequest, NotThere, listed, mapping, parse
from corpusgen.records import Json

_LISTED: Final = 20
_MOST_REQUESTS: Final = 100_000
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOD: Final = 300
_STATES: Final[dict[State, str]] = {"cancelling": "canceling", **dict.fromkeys(ENDED, "ended")}


@dataclass(kw_only=True)
class AnthropicBatches:
    """The batches of an account."""

    clerk: Clerk
    pace: Pace
    new_id: NewId
    origin: Callable[[], str]
    """Where this server is: results are told by their whole address."""
    _kept: dict[str, Job] = field(default_factory=dict)

    def advance(self) -> None:
        """Bring every batch up to now."""
        for job in self._kept.values():
            job.advance()

    def respond(self, heard: Heard, rest: Sequence[str]) -> Told | None:
        """The response to a request, or None where there is nothing. Raises NotARequest."""
        match heard.method, *rest:
            case ("POST",):
                return self._create(heard)
            case ("GET",):
                return self._listing(heard)
        job = self._kept.get(rest[0]) if rest else None
        if job is None:
            raise NotThere(f"no batch {'/'.join(rest)!r}")
        match heard.method, *rest[1:]:
            case ("GET",):
                return json_told(self._told(job))
            case "POST", "cancel":
                return self._cancel(job)
            case "GET", "results":
                return _results(job)
            case ("DELETE",):
                return self._delete(job)
        return None

    def _create(self, heard: Heard) -> Told:
        lines = _lines(parse(heard.body), heard)
        digest = hashlib.sha256(heard.body).hexdigest()
        job = new_job(
            self.new_id("msgbatch_"),
            lines,
            clerk=self.clerk,
            pace=self.pace,
            marks=marks_in(heard.body),
            key=digest,
        )
        if job.broken:
            raise NotARequest("requests: this batch was not to the validator's liking")
        self._kept[job.id] = job
        return json_told(self._told(job), heard=0.0 if job.fault == batch_faults.LOST else 1.0)

    def _listing(self, heard: Heard) -> Told:
        newest_first = [job for job in self._kept.values() if job.listed][::-1]
        portion, more = page(newest_first, heard.asks, after="after_id", before="before_id", limit=_LISTED)
        names = [job.id for job in portion]
        first, last = (names[0], names[-1]) if names else (None, None)
        told = [self._told(job) for job in portion]
        return json_told({"data": told, "has_more": more, "first_id": first, "last_id": last})

    def _cancel(self, job: Job) -> Told:
        if job.advance() in ENDED:
            raise NotARequest(f"batch {job.id} has ended and cannot be canceled")
        if job.cancelled is None:
            job.cancelled = self.clerk.now()
        return json_told(self._told(job))

    def _delete(self, job: Job) -> Told:
        if job.advance() not in ENDED:
            raise NotARequest(f"batch {job.id} is under way; cancel it before it is deleted")
        del self._kept[job.id]
        return json_told({"id": job.id, "type": "message_batch_deleted"})

    def _told(self, job: Job) -> dict[str, Json]:
        state = job.advance()
        ended = state in ENDED
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": _STATES.get(state, "in_progress"),
            "request_counts": _request_counts(job, state),
            "created_at": _spelt(job.created),
            "expires_at": _spelt(job.expires),
            "ended_at": _spelt(job.ended) if ended else None,
            "cancel_initiated_at": None if job.cancelled is None else _spelt(job.cancelled),
            "archived_at": None,
            "results_url": f"{self.origin()}/v1/messages/batches/{job.id}/results" if ended else None,
        }


def _spelt(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")


def _lines(asked: dict[str, Any], heard: Heard) -> list[Line]:
    requests = [mapping(request, "requests") for request in listed(asked.get("requests"), "requests")]
    if not 1 <= len(requests) <= _MOST_REQUESTS:
        raise NotARequest(f"requests: 1 to {_MOST_REQUESTS} are needed, found {len(requests)}")
    names = [request.get("custom_id") for request in requests]
    for at, name in enumerate(names):
        if not isinstance(name, str) or not _CUSTOM_ID.fullmatch(name):
            raise NotARequest(
                f"requests.{at}.custom_id: 1 to 64 letters, digits, - or _ are needed, found {name!r:.80}"
            )
    if len(set(names)) < len(names):
        raise NotARequest("requests: every custom_id must stand once")
    versions = {name: value for name, value in heard.headers.items() if name == "anthropic-version"}
    return [
        Line(
            custom_id=request["custom_id"],
            path=MESSAGES.path,
            body=orjson.dumps(mapping(request.get("params"), "params")),
            headers=versions,
        )
        for request in requests
    ]


def _request_counts(job: Job, state: State) -> dict[str, Json]:
    """How many lines came to what; as with the provider itself, all are processing until the batch has ended."""
    if state not in ENDED:
        return {"processing": len(job.lines), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    good = sum(result.status < _GOOD for result in job.results)
    left = len(job.undone())
    return {
        "processing": 0,
        "succeeded": good,
        "errored": len(job.results) - good,
        "canceled": left if state == "cancelled" else 0,
        "expired": left if state != "cancelled" else 0,
    }


def _results(job: Job) -> Told:
    state = job.advance()
    if state not in ENDED:
        raise NotARequest(f"batch {job.id} is still under way and has no results")
    answered = [_told_line(result.custom_id, _result(result)) for result in job.told_in_disorder()]
    never = "canceled" if state == "cancelled" else "expired"
    undone = [_told_line(line.custom_id, {"type": never}) for line in job.undone()]
    content, heard = spoilt_results(job, [*answered, *undone])
    return Told(body=content, headers=(("Content-Type", "application/x-jsonl"),), heard=heard)


def _result(result: Result) -> dict[str, Json]:
    if result.status < _GOOD:
        return {"type": "succeeded", "message": result.body}
    return {"type": "errored", "error": result.body}


def _told_line(custom_id: str, result: dict[str, Json]) -> bytes:
    return orjson.dumps({"custom_id": custom_id, "result": result}) + b"\n"
