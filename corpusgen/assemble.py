"""From a stored answer to a record: the same answer always makes the same record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from corpusgen.corpus import moment
from corpusgen.errors import CorpusDamaged
from corpusgen.records import (
    SCHEMA_VERSION,
    Completion,
    Json,
    Kind,
    Message,
    Record,
    Reply,
    Request,
    Usage,
    Verdict,
    canonical_json,
)
from corpusgen.screen import tagged
from corpusgen.store.answers import Answer, Card, Kept, RecordRow, Stored
from corpusgen.teachers.labels import LabelReading, read_label
from corpusgen.teachers.structured import fault_of
from corpusgen.teachers.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is the same for every record of a run; kept in the run's row."""

    run_id: str
    task: str
    kind: Kind
    spec_digest: str
    prompt_digest: str
    licence_expression: str
    label_names: tuple[str, ...] | None
    first_tokens: tuple[bytes, ...] | None
    licences: Mapping[str, str] = field(default_factory=dict)
    """What ``licence_expression`` is for answers of teachers named here, where there are several."""
    personal: Literal["tag", "mask"] | None = None
    """Whether records name the personal data in them, or have placeholders for it; None: nobody looks."""

    def to_json(self) -> str:
        """The facts as the run's row keeps them."""
        fields: dict[str, Json] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["first_tokens"] = None if self.first_tokens is None else [token.hex() for token in self.first_tokens]
        return canonical_json(fields).decode()

    @classmethod
    def from_json(cls, text: str) -> RunFacts:
        """The facts a run's row keeps."""
        fields: dict[str, Any] = orjson.loads(text)
        names, tokens = fields["label_names"], fields["first_tokens"]
        fields["label_names"] = None if names is None else tuple(names)
        fields["first_tokens"] = None if tokens is None else tuple(bytes.fromhex(token) for token in tokens)
        return cls(**fields)


def reply_of(answer: Answer) -> Reply:
    """A stored answer as the reply it was."""
    return Reply(
        body=answer.body,
        request_id=answer.provider_request_id,
        sent_time=moment(answer.sent_us),
        received_time=moment(answer.received_us),
        compute_us=answer.compute_us,
    )


def request_of(body: Mapping[str, Json]) -> Request:
    """A stored canonical request as the request it was."""
    turns = map(_turn, body["messages"])
    messages = tuple(Message(role=role, content=content, given=given) for role, content, given in turns)
    return Request(**{**body, "messages": messages})


def _turn(stored: list[Any]) -> tuple[Any, str, str | None]:
    """A turn as a stored request has it; only one that says more than text has a third part."""
    return (stored[0], stored[1], stored[2] if len(stored) > 2 else None)


def read_labels(facts: RunFacts, completion: Completion) -> LabelReading | None:
    """The label an answer gives, for a task that has labels."""
    return None if facts.label_names is None else read_label(facts.label_names, facts.first_tokens, completion)


def completions_of(teacher: Teacher, request: Request, reply: Reply) -> tuple[Completion, ...]:
    """The answers in a reply: one, unless the request asks for several. Raises InvalidAnswer."""
    return teacher.read_choices(request, reply) if "n" in request.parameters else (teacher.read(request, reply),)


def record_of_stored(facts: RunFacts, card: Card, stored: Stored, teacher: Teacher) -> Record:
    """The record of a row in the journal."""
    return record_of_kept(facts, card, stored, request_of(stored.request), teacher)


def record_of_kept(facts: RunFacts, card: Card, kept: Kept, request: Request, teacher: Teacher) -> Record:
    """The record of a row in the journal whose request is known."""
    at = kept.row.item.get("choice")
    reply = reply_of(kept.answer)
    completion = teacher.read(request, reply) if at is None else _choice(teacher.read_choices(request, reply), at)
    return record_of(facts, card, kept.row, kept.answer, request, completion, read_labels(facts, completion))


def _choice(read: tuple[Completion, ...], index: int) -> Completion:
    for one in read:
        if one.choice_index == index:
            return one
    raise CorpusDamaged(f"the stored reply has no answer {index} that this corpusgen can read; run corpusgen verify")


def part_of(amount: int, at: int, among: int) -> int:
    """What falls to one of several that share an amount evenly; the first ones take what is left over."""
    return (amount + among - 1 - at) // among


def _part_of_usage(usage: Usage, at: int, among: int) -> Usage:
    thought = usage.reasoning_tokens
    return replace(
        usage,
        input_tokens=part_of(usage.input_tokens, at, among),
        output_tokens=part_of(usage.output_tokens, at, among),
        cached_input_tokens=part_of(usage.cached_input_tokens, at, among),
        reasoning_tokens=None if thought is None else part_of(thought, at, among),
    )


def record_of(
    facts: RunFacts,
    card: Card,
    row: RecordRow,
    answer: Answer,
    request: Request,
    completion: Completion,
    reading: LabelReading | None,
) -> Record:
    """The record of an answer."""
    key = row.request_key.hex()
    usage, cost, share = answer.usage, answer.cost_microusd, row.item.get("share")
    if share is not None:
        usage, cost = _part_of_usage(usage, *share), part_of(cost, *share)
    cost += row.item.get("first_cost_microusd", 0)
    asked, tokens = request.messages[: row.item.get("turns")], completion.logprobs
    plain = request.tools is None and not [turn for turn in asked if turn.given is not None]
    record = _made(
        record_id=row.record_id,
        task=facts.task,
        dataset_split=row.split,
        kind=facts.kind,
        sample_index=row.item["sample_index"],
        parent_ids=(row.item_id,) if facts.kind == "judgement" else tuple(row.item.get("parent_ids", ())),
        input=row.item["input"],
        messages=asked if plain else tuple(map(_words_of, asked)),
        response=completion.text,
        reasoning=completion.reasoning,
        trace_kind=completion.trace_kind,
        finish_reason=completion.finish_reason,
        truncated=completion.truncated,
        label=reading.label if reading else None,
        label_names=facts.label_names,
        label_logprobs=_known(reading.logprobs) if reading else None,
        token_bytes=tokens.token_bytes if tokens else None,
        token_ids=tokens.token_ids if tokens else None,
        token_logprobs=tokens.token_logprobs if tokens else None,
        topk_bytes=tokens.topk_bytes if tokens else None,
        topk_ids=tokens.topk_ids if tokens else None,
        topk_logprobs=tokens.topk_logprobs if tokens else None,
        topk_len=tokens.topk_len if tokens else None,
        logprob_kind=tokens.kind if tokens else None,
        tokenizer=tokens.tokenizer if tokens else None,
        tool_calls=completion.tool_calls,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_microusd=0 if row.from_cache else cost,
        origin_cost_microusd=cost if row.from_cache else None,
        price_version=answer.price_version,
        teacher=card.teacher,
        provider=card.provider,
        model_requested=request.model,
        model_served=completion.model_served,
        route=card.route,
        host=card.host,
        request_key=key,
        request_keys=_keys(row, key),
        provider_request_id=answer.provider_request_id,
        terms_set_id=card.terms_set_id,
        licence_expression=facts.licences.get(card.teacher, facts.licence_expression),
        outputs_train=card.outputs_train,
        source_ids=tuple(row.item["source_ids"]),
        prompt_digest=facts.prompt_digest,
        spec_digest=facts.spec_digest,
        run_id=row.run_id,
        from_cache=row.from_cache,
        sent_time=moment(answer.sent_us),
        received_time=moment(answer.received_us),
        latency_ms=(answer.received_us - answer.sent_us) / 1000,
        pii_kinds=None,
        verdicts=() if request.schema is None else (_held_to_schema(request, completion),),
        calibrated_label=None,
        calibrated_logprobs=None,
        structured=completion.structured,
        teacher_role=row.item.get("role", "primary"),
        conversation=None if plain else _conversation(request, asked),
        schema_version=SCHEMA_VERSION,
    )
    return record if facts.personal is None else tagged(record, mask=facts.personal == "mask")


def _words_of(turn: Message) -> Message:
    return turn if turn.given is None else Message(role=turn.role, content=turn.content)


def _conversation(request: Request, asked: tuple[Message, ...]) -> str:
    """The prompt as it was sent."""
    said: dict[str, Json] = {"api": request.api, "messages": [_as_sent(turn) for turn in asked]}
    return canonical_json(said if request.tools is None else said | {"tools": request.tools}).decode()


def _as_sent(turn: Message) -> Json:
    return {"role": turn.role, "content": turn.content} if turn.given is None else orjson.loads(turn.given)


def _keys(row: RecordRow, key: str) -> tuple[str, ...]:
    """Every request that was paid for on the way to a record, in the order of asking."""
    return (key,) if row.first_key == row.request_key else (row.first_key.hex(), *row.item.get("between", ()), key)


def _held_to_schema(request: Request, completion: Completion) -> Verdict:
    fault = fault_of(request, completion)
    return Verdict(check="schema", kept=fault is None, reason=fault)


if TYPE_CHECKING:
    _made = Record
else:

    def _made(**fields):
        """A record of these fields, all of them. A frozen dataclass sets each by itself, which took half of a record's
        time.
        """
        record = object.__new__(Record)
        object.__setattr__(record, "__dict__", fields)
        return record


def _known(logprobs: tuple[float | None, ...] | None) -> tuple[float | None, ...] | None:
    """Log-probabilities of which at least one is known; a teacher that gives none has none, not a list of gaps."""
    return logprobs if logprobs and any(value is not None for value in logprobs) else None
