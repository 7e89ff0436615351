"""The lines of a batch: read out of what was sent, and told as each vendor tells what became of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from corpusgen.journal import Journal
from corpusgen.records import Json
from corpusgen.serve.batches.rows import Batch, Line, LineState, lines_from
from corpusgen.serve.reading import object_in
from corpusgen.serve.statuses import Refused
from corpusgen.serve.wires.calls import BadCall, Call, Wire, read_call
from corpusgen.store.answers import find_answer

ENDPOINTS: Final[Mapping[str, Wire]] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/completions": "completion",
}
"""What the lines of OpenAI's batches may ask, and in which wire format."""
LONGEST_ID: Final = 512
MOST_ERRORS: Final = 100
AT_ONCE: Final = 64
_ANTHROPIC_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOD: Final[tuple[LineState, ...]] = ("answered",)
_BAD: Final[tuple[LineState, ...]] = ("failed", "cancelled", "expired")
_EVERY: Final = (*_GOOD, *_BAD)
_NEVER_ASKED: Final[Mapping[str, tuple[str, str]]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
_ERASED: Final = "this was answered and erased since"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_lines(content: bytes | None, endpoint: str, most: int) -> tuple[list[Line], list[dict[str, Json]]]:
    """The calls in a file, and what is wrong with it: as the vendor has it, one line that is none spoils the batch."""
    lines: list[Line] = []
    errors: list[dict[str, Json]] = []
    seen = set[str]()
    if content is None:
        return [], [_error("file_not_found", "The input file was deleted before it was read.", None, None)]
    for number, raw in enumerate(filter(None, map(bytes.strip, content.split(b"\n"))), start=1):
        if number > most:
            errors.append(_error("too_many_lines", f"A batch here has at most {most:,} lines.", number, None))
            break
        found = _line(raw, endpoint, number, seen)
        if isinstance(found, Line):
            lines.append(found)
        elif len(errors) < MOST_ERRORS:
            errors.append(found)
    if not lines and not errors:
        errors.append(_error("empty_file", "The input file is empty.", None, None))
    return lines, errors


def _line(raw: bytes, endpoint: str, number: int, seen: set[str]) -> Line | dict[str, Json]:
    try:
        found = object_in(raw)
    except Refused as error:
        return _error("invalid_json_line", f"This line is not parseable as valid JSON: {error}", number, None)
    name = found.get("custom_id")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
        why = f"custom_id: a text of 1 to {LONGEST_ID} characters is needed."
        return _error("missing_required_parameter", why, number, "custom_id")
    if found.get("url") != endpoint or found.get("method") != "POST":
        return _error("mismatched_endpoint", f"The line must be a POST to {endpoint}, as the batch.", number, "url")
    if not isinstance(found.get("body"), dict):
        return _error("missing_required_parameter", "body: an object is needed.", number, "body")
    if name in seen:
        return _error("duplicate_custom_id", "This custom_id stands twice in the file.", number, "custom_id")
    seen.add(name)
    return Line(n=number, custom_id=name, body=orjson.dumps(found["body"]))


def _error(code: str, message: str, line: int | None, param: str | None) -> dict[str, Json]:
    return {"code": code, "message": message, "line": line, "param": param}


def read_requests(body: bytes, most: int) -> list[Line]:
    """The calls in a batch of messages. Raises Refused or BadCall naming the first that is wrong."""
    asked = object_in(body)
    requests = asked.get("requests")
    if not isinstance(requests, list) or not 0 < len(requests) <= most:
        raise BadCall(f"requests: a list of 1 to {most:,} is needed", field="requests")
    if unknown := sorted(asked.keys() - {"requests"}):
        raise BadCall(f"unknown parameters: {unknown[0]!r:.80}; leave them out", field=unknown[0][:80])
    lines = [_request(one, at) for at, one in enumerate(requests)]
    if len({line.custom_id for line in lines}) < len(lines):
        raise BadCall("requests: every custom_id must stand once", field="requests")
    return lines


def _request(one: Json, at: int) -> Line:
    if not isinstance(one, dict) or not isinstance(one.get("params"), dict):
        raise BadCall(f"requests.{at}.params: an object is needed", field=f"requests.{at}.params")
    name = one.get("custom_id")
    if not isinstance(name, str) or not _ANTHROPIC_ID.fullmatch(name):
        field = f"requests.{at}.custom_id"
        raise BadCall(f"{field}: 1 to 64 letters, digits, - or _ are needed", field=field)
    return Line(n=at + 1, custom_id=name, body=orjson.dumps(one["params"]))


def call_of(batch: Batch, line: Line) -> Call:
    """What a line asks. Raises BadCall."""
    body: dict[str, Json] = orjson.loads(line.body or b"{}")
    call = read_call(batch.wire, body)
    if call.stream:
        raise BadCall("stream: nobody listens to a batch; leave it out", field="stream")
    return call


# --- telling ----------------------------------------------------------------------------------------------------------


def told_lines(journal: Journal, batch: Batch, *, good: bool, bad: bool) -> Iterator[bytes]:
    """What became of the lines of a batch, in their order, some at a time."""
    states, after = _GOOD if not bad else _BAD if not good else _EVERY, -1
    while found := lines_from(journal, batch.id, after, AT_ONCE, states):
        yield b"".join(told_line(batch, line, body_of(journal, line)) for line in found)
        after = found[-1].n


def body_of(journal: Journal, line: Line) -> bytes | None:
    """The answer to a line; None where there is none, or none any more."""
    if line.result is not None or line.key is None:
        return line.result
    answer = find_answer(journal.reader, line.key)
    return None if answer is None else answer.body


def told_line(batch: Batch, line: Line, body: bytes | None) -> bytes:
    """A line of the results, in the words of the batch's vendor."""
    tell = _for_anthropic if batch.wire == "messages" else _for_openai
    return orjson.dumps(tell(batch, line, body)) + b"\n"


def _for_openai(batch: Batch, line: Line, body: bytes | None) -> dict[str, Any]:
    name, told = _name(batch, line), line.told or {}
    found: dict[str, Any] = {"id": f"batch_req_{name}", "custom_id": line.custom_id, "response": None, "error": None}
    if line.state == "answered" and body is not None:
        request_id = told.get("request_id") or f"req_{name}"
        found["response"] = {"status_code": 200, "request_id": request_id, "body": _on_one_line(body)}
        found["corpusgen"] = _figures(told)
    elif line.state == "failed" and told:
        found["response"] = {"status_code": told["status"], "request_id": f"req_{name}", "body": told["body"]}
    else:
        code, message = _NEVER_ASKED.get(line.state, ("erased", _ERASED))
        found["error"] = {"code": code, "message": message}
    return found


def _for_anthropic(batch: Batch, line: Line, body: bytes | None) -> dict[str, Any]:
    told = line.told or {}
    if line.state == "answered" and body is not None:
        result: dict[str, Any] = {"type": "succeeded", "message": _on_one_line(body)}
        return {"custom_id": line.custom_id, "result": result, "corpusgen": _figures(told)}
    if line.state in _NEVER_ASKED:
        result = {"type": "canceled" if line.state == "cancelled" else "expired"}
    else:
        erased = {"type": "error", "error": {"type": "not_found_error", "message": _ERASED}}
        result = {"type": "errored", "error": told.get("body", erased) if line.state == "failed" else erased}
        result["error"] = {"request_id": f"req_{_name(batch, line)}", **result["error"]}
    return {"custom_id": line.custom_id, "result": result}


def _figures(told: Mapping[str, Json]) -> dict[str, Json]:
    return {name: told[name] for name in ("records", "cache", "cost_microusd", "teacher") if name in told}


def _name(batch: Batch, line: Line) -> str:
    return hashlib.sha256(f"{batch.id}/{line.custom_id}".encode()).hexdigest()[:24]


def _on_one_line(body: bytes) -> orjson.Fragment:
    """A teacher's bytes, without what would end a line of the results."""
    return orjson.Fragment(orjson.dumps(orjson.loads(body)) if b"\n" in body or b"\r" in body else body)


def endpoint_of(wire: Wire) -> str:
    """The address that the lines of a batch ask."""
    return next(path for path, found in ENDPOINTS.items() if found == wire)


def texts_of(value: Json, most: int) -> Sequence[str] | None:
    """The texts of an object of at most so many; None where it is none."""
    if not isinstance(value, dict) or len(value) > most:
        return None
    texts = [*value.keys(), *value.values()]
    return texts if all(isinstance(one, str) and len(one) <= LONGEST_ID for one in texts) else None
