"""A teacher that says what a file or a function tells it to: for tests, for the documentation, for trying a task out.

Its answers take the road of every other answer: they are written as an OpenAI-shaped reply and read through ``wire``.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from corpusgen.errors import (
    NotSent,
    Problem,
    RateLimited,
    RequestRefused,
    SpecError,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UsageError,
)
from corpusgen.records import Completion, Json, Reply, Request
from corpusgen.spec import parse_yaml
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.chunks import chunks_of
from corpusgen.teachers.endpoint import tokens_bound
from corpusgen.teachers.reading import believed, body_of, only, read_choices
from corpusgen.teachers.teacher import Capabilities, Offer, TeacherCard
from corpusgen.teachers.transport import Clock

MOST_NOTED: Final = 1_000
"""Requests that a test may look at; a run of a million keeps no more of them."""

CAPABILITIES: Final = Capabilities(apis=frozenset({"chat", "completion"}), top_logprobs=1000, parameters=None)

_WELL_FORMED: Final = b'{"id":"scripted",'
_INVALID_BODY: Final = "<html>not an answer</html>"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScriptedUsage(_Part):
    """Tokens the answer claims to have used."""

    input_tokens: int
    output_tokens: int


class ScriptedAnswer(_Part):
    """What to answer. With ``label_logprobs`` and no text, the likeliest label is the text."""

    text: str | None = None
    reasoning: str | None = None
    label_logprobs: Mapping[str, float] | None = None
    finish_reason: str = "stop"
    usage: ScriptedUsage | None = None
    latency_s: float = 0.0
    compute_us: int | None = None
    body: str | None = Field(default=None, description="Sent as it is in place of a well-formed reply")


class ScriptedFailure(_Part):
    """What goes wrong in place of an answer; ``invalid`` is an HTTP 200 that is none."""

    kind: Literal["timeout", "rate_limited", "fault", "refused", "not_sent", "invalid"]
    message: str = "scripted"
    status: int | None = None
    retry_after_s: float | None = None


class ScriptedRule(ScriptedAnswer):
    """An answer and the question it is for: ``input`` is all of the last message, ``contains`` a part of it."""

    input: str | None = None
    contains: str | None = None
    error: ScriptedFailure | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        default=None, description="Answer with one of these, chosen by a digest of the question"
    )


class Script(_Part):
    """A file of answers; ``default`` is for questions no rule is for."""

    answers: tuple[ScriptedRule, ...] = ()
    default: ScriptedRule | None = None


Rule = Callable[[Request], ScriptedAnswer | TeacherError]
Sleep = Callable[[float], Awaitable[object]]


@dataclass(kw_only=True)
class Scripted:
    """A teacher that follows a rule; ``asked`` lists the first thousand requests that reached it."""

    rule: Rule
    card: TeacherCard
    clock: Clock
    sleep: Sleep = asyncio.sleep
    asked: list[Request] = field(default_factory=list)

    def input_tokens_bound(self, request: Request) -> int:
        """Bytes of everything sent; the usage it makes up is below that."""
        return tokens_bound(self.card, request)

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """A label is one token here, with the space before it."""
        return tuple(f" {label}".encode() for label in labels)

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """What the rule says, after the latency it says."""
        body_of(request)  # Refuses what a real server could not be asked either.
        sent = self.clock()
        if len(self.asked) < MOST_NOTED:
            self.asked.append(request)
        answer = self.rule(request)
        if isinstance(answer, TeacherError):
            raise answer
        if answer.latency_s > 0:
            await self.sleep(min(answer.latency_s, timeout_s))
        if answer.latency_s > timeout_s:
            raise TeacherTimeout(f"no whole answer from {self.card.name} within {timeout_s:g} s")
        return Reply(
            body=_body(request, answer) if answer.body is None else answer.body.encode(),
            request_id=f"scripted-{request.key.hex()[:16]}",
            sent_time=sent,
            received_time=self.clock(),
            compute_us=answer.compute_us,
        )

    async def ask_streaming(self, request: Request, *, timeout_s: float, heard: Callable[[bytes], None]) -> Reply:
        """The same, told a few words at a time; a body that is written out in the script comes whole."""
        reply = await self.ask(request, timeout_s=timeout_s)
        if request.api in ("chat", "completion") and reply.body.startswith(_WELL_FORMED):
            api: Literal["chat", "completion"] = "chat" if request.api == "chat" else "completion"
            for event in chunks_of(api, orjson.loads(reply.body), usage=True):
                heard(event)
        return reply

    def read(self, request: Request, reply: Reply) -> Completion:
        """The answer in a reply."""
        return only(self.read_choices(request, reply))

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """Every answer in a reply."""
        read = read_choices(request, reply, tokenizer="scripted")
        return believed(read, request, lambda: self.input_tokens_bound(request))

    async def aclose(self) -> None:
        """Nothing to let go of."""


def scripted(
    rule: Rule,
    *,
    clock: Clock,
    name: str = "scripted/test",
    identity: str = "script:function",
    sleep: Sleep = asyncio.sleep,
    in_flight: int = 16,
) -> Scripted:
    """A teacher that follows a Python function. Give each function its ``identity``: it is part of the request key."""
    card = TeacherCard(
        name=name,
        identity=identity,
        provider="corpusgen",
        model=name.partition("/")[2],
        route="mock",
        host="localhost",
        weights_sha256=None,
        capabilities=CAPABILITIES,
        in_flight=in_flight,
    )
    return Scripted(rule=rule, card=card, clock=clock, sleep=sleep)


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Scripted:
    """The teacher whose answers are in the file ``script`` names. Raises UsageError or SpecError with the line."""
    if spec.script is None:
        raise UsageError(f"script: teacher {spec.name!r} needs a file of answers, such as script: answers.yaml")
    path = (folder / spec.script).resolve()
    script, raw = read_script(path)
    return scripted(
        rule_of(script),
        clock=clock,
        name=spec.name,
        identity=f"script:sha256:{hashlib.sha256(raw).hexdigest()}",
        in_flight=spec.in_flight or 16,
    )


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    return (Offer(name="scripted/NAME", route="mock", provider="corpusgen", installed=True, free=True),)


# --- the file --------------------------------------------------------------------------------------------------------


def read_script(path: Path) -> tuple[Script, bytes]:
    """The answers in a YAML file, or in a ``.jsonl`` file with one rule a line; and the file's bytes."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(Problem(file=path, line=None, field="", message=f"cannot be read: {error.strerror}")) from error
    return (_from_lines(path, raw) if path.suffix == ".jsonl" else _from_yaml(path, raw)), raw


def rule_of(script: Script) -> Rule:
    """The rule a script stands for: whole inputs first, then the part that stands last in the question."""
    exact = {rule.input: rule for rule in script.answers if rule.input is not None}
    parts = [(rule.contains, rule) for rule in script.answers if rule.contains is not None]

    def rule(request: Request) -> ScriptedAnswer | TeacherError:
        question = request.messages[-1].content
        # Worked examples stand before the question, so the last part found is the one that is asked about.
        found = exact.get(question) or _last_part(parts, question) or script.default
        return _outcome(found, question)

    return rule


def _from_yaml(path: Path, raw: bytes) -> Script:
    value, lines = parse_yaml(path, raw)
    try:
        return Script.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise SpecError(
            *(_problem(path, lines.get(tuple(found["loc"])), found["loc"], found["msg"]) for found in error.errors())
        ) from error


def _from_lines(path: Path, raw: bytes) -> Script:
    adapter = TypeAdapter(ScriptedRule)
    rules: list[ScriptedRule] = []
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            rules.append(adapter.validate_json(line))
        except ValidationError as error:
            found = error.errors()[0]
            raise SpecError(_problem(path, number, found["loc"], found["msg"])) from error
    open_ended = [rule for rule in rules if rule.input is None and rule.contains is None]
    return Script(answers=tuple(rules), default=open_ended[-1] if open_ended else None)


def _problem(path: Path, line: int | None, field_path: tuple[int | str, ...], message: str) -> Problem:
    return Problem(file=path, line=line, field=".".join(map(str, field_path)), message=message)


def _last_part(parts: Sequence[tuple[str, ScriptedRule]], question: str) -> ScriptedRule | None:
    found = max(parts, key=lambda part: question.rfind(part[0]), default=None)
    return found[1] if found is not None and found[0] in question else None


def _outcome(rule: ScriptedRule | None, question: str) -> ScriptedAnswer | TeacherError:
    if rule is None:
        return RequestRefused(f"the script has no answer to {question[-80:]!r}; add one, or a default", status=404)
    if rule.error is not None:
        return _failure(rule.error)
    return rule if rule.labels is None else rule.model_copy(update={"label_logprobs": _drawn(rule.labels, question)})


def _failure(error: ScriptedFailure) -> ScriptedAnswer | TeacherError:
    match error.kind:
        case "invalid":
            return ScriptedAnswer(body=_INVALID_BODY)
        case "timeout":
            return TeacherTimeout(error.message)
        case "not_sent":
            return NotSent(error.message)
        case "rate_limited":
            return RateLimited(error.message, retry_after_s=error.retry_after_s, status=error.status or 429)
        case "fault":
            return TeacherFault(error.message, retry_after_s=error.retry_after_s, status=error.status or 500)
        case "refused":
            return RequestRefused(error.message, status=error.status or 400)


def _drawn(labels: Sequence[str], question: str) -> dict[str, float]:
    weights = [1 + byte for byte in hashlib.sha256(question.encode()).digest()[: len(labels)]]
    # A tenth of the probability stays with tokens that are no label, as it does with real models.
    return {label: math.log(0.9 * weight / sum(weights)) for label, weight in zip(labels, weights, strict=False)}


# --- the reply -------------------------------------------------------------------------------------------------------


def _body(request: Request, answer: ScriptedAnswer) -> bytes:
    text = answer.text if answer.text is not None else _likeliest(answer.label_logprobs)
    tokens = _tokens(text)
    choice: dict[str, Json] = {"index": 0, "finish_reason": answer.finish_reason}
    choice["logprobs"] = _logprobs(request, answer.label_logprobs, tokens)
    if request.api == "completion":
        choice["text"] = text
    else:
        choice["message"] = {"role": "assistant", "content": text, "reasoning_content": answer.reasoning}
    reply = {"id": "scripted", "model": request.model, "choices": [choice], "usage": _usage(request, answer, tokens)}
    return orjson.dumps(reply)


def _likeliest(label_logprobs: Mapping[str, float] | None) -> str:
    return f" {max(label_logprobs, key=lambda label: label_logprobs[label])}" if label_logprobs else ""


def _tokens(text: str) -> list[str]:
    words = text.split(" ")
    return [token for token in [words[0], *(f" {word}" for word in words[1:])] if token]


def _usage(request: Request, answer: ScriptedAnswer, tokens: Sequence[str]) -> dict[str, int]:
    if answer.usage is not None:
        return {"prompt_tokens": answer.usage.input_tokens, "completion_tokens": answer.usage.output_tokens}
    given = sum(len(message.sent.encode()) for message in request.messages)
    return {"prompt_tokens": math.ceil(given / 4), "completion_tokens": len(tokens)}


def _logprobs(request: Request, label_logprobs: Mapping[str, float] | None, tokens: Sequence[str]) -> Json:
    most = request.parameters.get("top_logprobs")
    if most is None:
        return None
    positions = [_position(token, {token: -0.1 * (1 + index % 7)}, most) for index, token in enumerate(tokens)]
    if label_logprobs:
        ranked = {f" {label}": logprob for label, logprob in label_logprobs.items()}
        positions[:1] = [_position(tokens[0] if tokens else "", ranked, most)]
    return {"content": positions}


def _position(token: str, ranked: Mapping[str, float], most: int) -> dict[str, Json]:
    best = sorted(ranked.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
    runners_up = [{"token": text, "logprob": logprob, "bytes": list(text.encode())} for text, logprob in best]
    return {"token": token, "logprob": ranked.get(token), "bytes": list(token.encode()), "top_logprobs": runners_up}
