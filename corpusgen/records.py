"""The nouns every step shares: messages, requests, completions, records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import orjson

from corpusgen.frozen import quickly_made, worked_out_once

SCHEMA_VERSION = 3
"""Version of the record columns; every stored row and shard names it."""

Json: TypeAlias = Any
"""A value that came from JSON or will become JSON."""

Split: TypeAlias = Literal["train", "validation", "gold"]
Kind: TypeAlias = Literal["response", "label", "preference", "judgement"]
TraceKind: TypeAlias = Literal["raw", "summary", "omitted", "encrypted"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "other"]
"""``pause``: the teacher broke off a long turn and would go on if asked; the answer is not whole. ``other``: it said
nothing of it, or a word nobody here knows."""
TeacherRole: TypeAlias = Literal["primary", "fallback", "mixture", "judge"]
"""Why this teacher was asked: first, because another would or could not answer, by its share of a mixture, or to judge
what others answered."""
Api: TypeAlias = Literal["chat", "completion", "responses", "messages"]
"""The wire format of a question: OpenAI's chat, completions and responses, and Anthropic's messages."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation.

    ``given`` is the whole turn as a caller gave it, JSON in the wire format of the request it belongs to, where it says
    more than text (tool calls, results of tools, signed thinking); ``content`` is then its text.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    given: str | None = None

    @property
    def named(self) -> list[str]:
        """What stands for the turn in the name of a request."""
        return [self.role, self.content] if self.given is None else [self.role, self.content, self.given]

    @property
    def sent(self) -> str:
        """What of the turn is sent: its text, or all that was given."""
        return self.content if self.given is None else self.given


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to one teacher, with everything that can change the answer and nothing else.

    ``teacher`` names who answers: provider and origin for a service, the weights' digest for a local model.
    ``parameters`` holds every sampling parameter, known to us or not.
    """

    teacher: str
    model: str
    api: Api
    messages: tuple[Message, ...]
    parameters: Mapping[str, Json] = field(default_factory=dict)
    schema: Json = None
    tools: Json = None
    sample_index: int = 0

    @worked_out_once
    def body(self) -> bytes:
        """The canonical request: JSON with sorted keys, whole numbers without a fraction."""
        return canonical_json(
            {
                "teacher": self.teacher,
                "model": self.model,
                "api": self.api,
                "messages": [message.named for message in self.messages],
                "parameters": dict(self.parameters),
                "schema": self.schema,
                "tools": self.tools,
                "sample_index": self.sample_index,
            }
        )

    @worked_out_once
    def key(self) -> bytes:
        """sha256 of the canonical request (32 bytes): same question, same key, in every corpus."""
        return hashlib.sha256(self.body).digest()


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens one call used. ``input_tokens`` includes cached and written ones, ``output_tokens`` includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int | None = None
    cache_write_tokens: int = 0
    """Input the provider wrote to its prompt cache, which some bill above plain input."""
    cache_write_1h_tokens: int = 0
    """Those of ``cache_write_tokens`` that are kept for an hour or longer."""
    service_tier: str | None = None
    """The tier that answered, in the provider's word; it decides the price."""
    counted: bool = True
    """False where the provider gave no count (or an impossible nought): the most it can have been stands instead."""
    billed_microusd: int | None = None
    """What the provider says it charged for this very call, where its word is what is charged."""

    @property
    def total_tokens(self) -> int:
        """What a token budget counts."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """Log-probabilities of the answered tokens and of their runners-up, flat over positions.

    ``topk_len[i]`` runners-up belong to position ``i``; bytes, not strings, because a token may be half a character.
    A log-probability the teacher did not give is None.
    """

    token_bytes: tuple[bytes, ...]
    token_ids: tuple[int, ...] | None
    token_logprobs: tuple[float | None, ...]
    topk_bytes: tuple[bytes, ...]
    topk_ids: tuple[int, ...] | None
    topk_logprobs: tuple[float | None, ...]
    topk_len: tuple[int, ...]
    kind: Literal["raw", "post_sampling"] = "raw"
    tokenizer: str | None = None

    def at(self, position: int) -> dict[bytes, float]:
        """The runners-up at one position, with their log-probabilities."""
        start = sum(self.topk_len[:position])
        stop = start + self.topk_len[position]
        pairs = zip(self.topk_bytes[start:stop], self.topk_logprobs[start:stop], strict=True)
        return {token: logprob for token, logprob in pairs if logprob is not None}


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back over the wire, before anybody believed it."""

    body: bytes
    request_id: str | None
    sent_time: datetime
    received_time: datetime
    compute_us: int | None = None
    """Processor time the answer took, where the teacher runs on this machine."""
    headers: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    """What was said beside the body, for whoever keeps to rate limits; never stored."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Completion:
    """A teacher's answer, parsed and validated. Each of several answers to one call bears the whole call's usage."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    reasoning: str | None = None
    trace_kind: TraceKind | None = None
    logprobs: TokenLogprobs | None = None
    tool_calls: str | None = None
    """JSON list of calls, ``{id, type: function, function: {name, arguments}}`` whichever format they came in."""
    model_served: str | None = None
    provider_request_id: str | None = None
    reasoning_parts: str | None = None
    """The reasoning as it came, a JSON list: with signatures and encrypted parts, fit to be sent back unchanged."""
    refusal: str | None = None
    """Why the teacher would not, in its own words, where it gave any."""
    structured: str | None = None
    """The answer as JSON, where a schema was asked for and the text is JSON."""
    system_fingerprint: str | None = None
    upstream: str | None = None
    """Who really answered behind an aggregator, in its own word."""
    choice_index: int = 0
    """Which of several answers to one call this is."""
    surplus: int = 0
    """How many answers the call gave beyond those that were asked for; they are not kept."""

    @property
    def truncated(self) -> bool:
        """True when the answer is not whole: the teacher ran into ``max_tokens`` or its context, or paused."""
        return self.finish_reason in ("length", "pause")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one check said of one record."""

    check: str
    kept: bool
    score: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One paid-for answer with everything needed to trust it; a row of a shard.

    Times are UTC, money is integer micro-dollars, log-probabilities are natural logarithms. None means that the
    teacher gives no such thing, or that the shard is older than the column. Of a call that gave several answers, each
    record bears an even part of cost and tokens, the first ones what is left over. ``label_logprobs`` are raw;
    ``calibrated_label`` and ``calibrated_logprobs`` are filled in when a dataset is selected, with the calibration that
    was chosen on validation items.
    """

    record_id: str
    task: str
    dataset_split: Split
    kind: Kind
    sample_index: int
    parent_ids: tuple[str, ...]
    input: str
    messages: tuple[Message, ...]
    response: str
    reasoning: str | None
    trace_kind: TraceKind | None
    finish_reason: FinishReason
    truncated: bool
    label: str | None
    label_names: tuple[str, ...] | None
    label_logprobs: tuple[float | None, ...] | None
    token_bytes: tuple[bytes, ...] | None
    token_ids: tuple[int, ...] | None
    token_logprobs: tuple[float | None, ...] | None
    topk_bytes: tuple[bytes, ...] | None
    topk_ids: tuple[int, ...] | None
    topk_logprobs: tuple[float | None, ...] | None
    topk_len: tuple[int, ...] | None
    logprob_kind: str | None
    tokenizer: str | None
    tool_calls: str | None
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None
    cost_microusd: int
    origin_cost_microusd: int | None
    price_version: str
    teacher: str
    provider: str
    model_requested: str
    model_served: str | None
    route: str
    host: str
    request_key: str
    request_keys: tuple[str, ...]
    provider_request_id: str | None
    terms_set_id: str
    licence_expression: str
    outputs_train: str
    source_ids: tuple[str, ...]
    prompt_digest: str
    spec_digest: str
    run_id: str
    from_cache: bool
    sent_time: datetime
    received_time: datetime
    latency_ms: float
    pii_kinds: tuple[str, ...] | None
    verdicts: tuple[Verdict, ...]
    calibrated_label: str | None = None
    calibrated_logprobs: tuple[float, ...] | None = None
    structured: str | None = None
    """The response as canonical JSON, where it was held to a schema and fits it."""
    teacher_role: TeacherRole | None = None
    conversation: str | None = None
    """The prompt as it was sent, where it says more than ``messages`` (tools, calls of tools and their results, signed
    thinking): canonical JSON, ``{api, messages, tools}``, in the words of the wire format ``api``."""
    schema_version: int = SCHEMA_VERSION


def canonical_json(value: Json) -> bytes:
    """JSON bytes that are equal for equal values: sorted keys, UTF-8, 1.0 written as 1."""
    written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if not _has_fraction(written):  # no whole number is written as one, which holds for almost every request
        return written
    return orjson.dumps(_whole_numbers(value), option=orjson.OPT_SORT_KEYS)


def digest(value: Json) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


_AFTER_NUMBER: Final = frozenset({b",", b"]", b"}", b""})


def _has_fraction(written: bytes) -> bool:
    """Whether a number may be a whole one with a fraction; versions and addresses in texts hardly look like one."""
    point = written.find(b".0")
    while point >= 0:
        if written[point + 2 : point + 3] in _AFTER_NUMBER and _is_number_before(written, point):
            return True
        point = written.find(b".0", point + 1)
    return False


def _is_number_before(written: bytes, point: int) -> bool:
    # A whole number below 2**53 has at most 16 digits, and stands after one of these or at the very beginning.
    before = written[max(0, point - 24) : point].rstrip(b"0123456789").removesuffix(b"-")
    return not before or before[-1:] in (b":", b",", b"[")


def _whole_numbers(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(item) for item in value]
    return value
