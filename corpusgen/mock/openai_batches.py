"""OpenAI's Batches: ``/v1/batches``, fed from and answered into files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from corpusgen.mock import batch_faults
from corpusgen.mock.answer import DIALECTS
from corpusgen.mock.http import Heard, Told, json_told
from corpusgen.mock.jobs import ENDED, Clerk, Job, Line, NewId, Pace, Result, State, new_job, page, spoilt_results
from corpusgen.mock.openai_files import Files, StoredFile, listing
from corpusgen.mock.plan import marks_in
from corpusgen.mock.question import NotARequest, NotThere, TooLate, mapping, parse
from corpusgen.records import Json

_ENDPOINTS: Final = tuple(path for path, dialect in DIALECTS.items() if dialect.vendor == "openai")
_LISTED: Final = 20
_MOST_METADATA: Final = 16
_GOOD: Final = 300
"""Statuses below this go to the output file, others to the error file."""

_NEVER_ASKED: Final[dict[State, tuple[str, str]]] = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch as it was asked for."""

    job: Job
    input_file_id: str
    endpoint: str
    metadata: Json
    errors: Sequence[dict[str, Json]]
    model: str | None

    @property
    def id(self) -> str:
        """Its name."""
        return self.job.id


@dataclass(kw_only=True)
class OpenAIBatches:
    """The batches of an account."""

    files: Files
    clerk: Clerk
    pace: Pace
    new_id: NewId
    _kept: dict[str, Batch] = field(default_factory=dict)

    def advance(self) -> None:
        """Bring every batch up to now."""
        for batch in self._kept.values():
            batch.job.advance()

    def respond(self, heard: Heard, rest: Sequence[str]) -> Told | None:
        """The response to a request, or None where there is nothing. Raises NotARequest."""
        match heard.method, *rest:
            case ("POST",):
                return self._create(parse(heard.body))
            case ("GET",):
                return self._listing(heard)
        found = self._kept.get(rest[0]) if rest else None
        if found is None:
            raise NotThere(f"No batch found with id {'/'.join(rest)!r}.")
        match heard.method, *rest[1:]:
            case ("GET",):
                return json_told(self._told(found))
            case "POST", "cancel":
                return self._cancel(found)
        return None

    def _create(self, asked: dict[str, Any]) -> Told:
        source = self.files.get(str(asked.get("input_file_id")))
        if source is None:
            raise NotARequest(f"input_file_id: there is no file {asked.get('input_file_id')!r}")
        if asked.get("endpoint") not in _ENDPOINTS:
            raise NotARequest(f"endpoint: one of {', '.join(_ENDPOINTS)} is needed, found {asked.get('endpoint')!r}")
        if asked.get("completion_window") != "24h":
            raise NotARequest(f"completion_window: '24h' is needed, found {asked.get('completion_window')!r}")
        batch = self._begun(source, asked["endpoint"], _metadata(asked))
        self._kept[batch.id] = batch
        lost = batch.job.fault == batch_faults.LOST
        return json_told(self._told(batch), heard=0.0 if lost else 1.0)

    def _begun(self, source: StoredFile, endpoint: str, metadata: Json) -> Batch:
        content, _ = source.content()
        lines, errors = read_lines(content, endpoint)
        job = new_job(
            self.new_id("batch_"),
            lines,
            clerk=self.clerk,
            pace=self.pace,
            marks=marks_in(content, orjson.dumps(metadata)),
            key=hashlib.sha256(content).hexdigest(),
            broken=bool(errors),
        )
        if job.broken and not errors:
            errors = [_error("invalid_request", "This batch was not to the validator's liking.", None)]
        model = str(orjson.loads(lines[0].body).get("model")) if lines else None
        return Batch(job=job, input_file_id=source.id, endpoint=endpoint, metadata=metadata, errors=errors, model=model)

    def _listing(self, heard: Heard) -> Told:
        newest_first = [batch for batch in self._kept.values() if batch.job.listed][::-1]
        portion, more = page(newest_first, heard.asks, after="after", before="", limit=_LISTED)
        return json_told(listing([self._told(batch) for batch in portion], more))

    def _cancel(self, batch: Batch) -> Told:
        state = batch.job.advance()
        if state in ENDED:
            raise TooLate(f"Cannot cancel a batch with status '{state}'.")
        if batch.job.cancelled is None:
            batch.job.cancelled = self.clerk.now()
        return json_told(self._told(batch))

    # --- what is told of a batch ---

    def _told(self, batch: Batch) -> dict[str, Json]:
        job = batch.job
        state = job.advance()
        good = [result for result in job.results if result.status < _GOOD]
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": batch.model,
            "errors": {"object": "list", "data": list(batch.errors)} if state == "failed" else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": state,
            **self._result_files(job, state, good),
            **_times(job, state),
            "request_counts": _request_counts(job, state, len(good)),
            "metadata": batch.metadata,
            "usage": _usage(good),
        }

    def _result_files(self, job: Job, state: State, good: Sequence[Result]) -> dict[str, Json]:
        names: dict[str, Json] = {"output_file_id": None, "error_file_id": None}
        if state not in ENDED or state == "failed":
            return names
        if good:
            names["output_file_id"] = self._put(job, "output", [_told_line(job, result) for result in good])
        bad = [_told_line(job, result) for result in job.results if result.status >= _GOOD]
        never = [_never_asked(job, line, state) for line in job.undone()]
        if bad or never:
            names["error_file_id"] = self._put(job, "error", [*bad, *never])
        return names

    def _put(self, job: Job, what: str, lines: Sequence[bytes]) -> str:
        """Keep a file of results once, and give its name."""
        name = f"file-{job.id.removeprefix('batch_')}-{what}"
        if self.files.get(name) is None:
            # No provider promises the order of the lines.
            told = sorted(lines, key=lambda line: hashlib.sha256(line).digest())
            found = StoredFile(
                id=name,
                filename=f"{job.id}_{what}.jsonl",
                purpose="batch_output",
                created=job.ended,
                content=lambda: spoilt_results(job, told) if what == "output" else (b"".join(told), 1.0),
                size=sum(map(len, told)),
            )
            self.files.keep(found)
        return name


def _metadata(asked: dict[str, Any]) -> Json:
    metadata = asked.get("metadata")
    found = mapping(metadata, "metadata")
    if len(found) > _MOST_METADATA or not all(isinstance(value, str) for value in found.values()):
        raise NotARequest(f"metadata: up to {_MOST_METADATA} texts are taken, found {found!r:.80}")
    return metadata


# --- the lines of the file -------------------------------------------------------------------------------------------


def read_lines(content: bytes, endpoint: str) -> tuple[list[Line], list[dict[str, Json]]]:
    """The requests in a file, and what is wrong with it."""
    lines, errors, seen, models = [], [], set[str](), set[Json]()
    for number, raw in enumerate(filter(None, content.split(b"\n")), start=1):
        line = _line(raw, endpoint, number, seen, models)
        if isinstance(line, Line):
            lines.append(line)
        else:
            errors.append(line)
    if not lines and not errors:
        errors.append(_error("empty_file", "The input file is empty.", None))
    return lines, errors


def _line(raw: bytes, endpoint: str, number: int, seen: set[str], models: set[Json]) -> Line | dict[str, Json]:
    try:
        found = parse(raw)
    except NotARequest as error:
        return _error("invalid_json_line", f"This line is not parseable as valid JSON: {error}", number)
    for name in ("custom_id", "method", "url", "body"):
        if not found.get(name):
            return _error("missing_required_parameter", f"Missing required parameter: {name!r}.", number, name)
    if found["url"] != endpoint or found["method"] != "POST":
        return _error("mismatched_endpoint", f"The URL must be POST {endpoint} as the batch says.", number, "url")
    if found["custom_id"] in seen:
        return _error("duplicate_custom_id", f"The custom_id {found['custom_id']!r} stands twice.", number, "custom_id")
    seen.add(found["custom_id"])
    models.add(found["body"].get("model"))
    if len(models) > 1:
        return _error("mismatched_model", "All lines of a batch must ask the same model.", number, "body.model")
    return Line(custom_id=found["custom_id"], path=endpoint, body=orjson.dumps(found["body"]))


def _error(code: str, message: str, line: int | None, param: str | None = None) -> dict[str, Json]:
    return {"code": code, "message": message, "line": line, "param": param}


# --- what is told of a line ------------------------------------------------------------------------------------------


def _told_line(job: Job, result: Result) -> bytes:
    response = {"status_code": result.status, "request_id": result.request_id, "body": result.body}
    return _line_of(job, result.custom_id, response=response, error=None)


def _never_asked(job: Job, line: Line, state: State) -> bytes:
    code, message = _NEVER_ASKED[state]
    return _line_of(job, line.custom_id, response=None, error={"code": code, "message": message})


def _line_of(job: Job, custom_id: str, **said: Json) -> bytes:
    name = hashlib.sha256(f"{job.id}/{custom_id}".encode()).hexdigest()[:24]
    return orjson.dumps({"id": f"batch_req_{name}", "custom_id": custom_id, **said}) + b"\n"


def _request_counts(job: Job, state: State, good: int) -> dict[str, Json]:
    known = state not in ("validating", "failed")
    failed = len(job.results) - good
    return {"total": len(job.lines) if known else 0, "completed": good, "failed": failed}


def _times(job: Job, state: State) -> dict[str, Json]:
    begun = state not in ("validating", "failed")
    worked = state in ("finalizing", "completed", "expired")
    ended = {"completed": "completed_at", "failed": "failed_at", "expired": "expired_at", "cancelled": "cancelled_at"}
    times: dict[str, float | None] = {
        "created_at": job.created,
        "in_progress_at": job.started if begun else None,
        "finalizing_at": min(job.worked, job.ended) if worked else None,
        "expires_at": job.expires,
        "cancelling_at": job.cancelled,
        **{name: job.ended if name == ended.get(state) else None for name in ended.values()},
    }
    return {name: None if time is None else int(time) for name, time in times.items()}


def _usage(good: Sequence[Result]) -> dict[str, Json]:
    total = [0, 0, 0, 0]
    for result in good:
        total = [so_far + more for so_far, more in zip(total, _counts(result.body), strict=True)]
    read, cached, written, thought = total
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + written,
    }


def _counts(body: Json) -> Iterator[int]:
    """Read, cached, written and thought tokens of an answer, whichever of the two spellings it has."""
    usage = (body if isinstance(body, dict) else {}).get("usage") or {}
    for name, details, part in (("prompt", "input", "cached"), ("completion", "output", "reasoning")):
        found = usage.get(f"{name}_tokens", usage.get(f"{details}_tokens", 0))
        inside = usage.get(f"{name}_tokens_details") or usage.get(f"{details}_tokens_details") or {}
        for count in (found, inside.get(f"{part}_tokens", 0)):
            yield count if isinstance(count, int) else 0
