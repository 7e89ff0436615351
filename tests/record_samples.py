"""Records to test with: one with sensible values, and a strategy for all the strange ones."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from hypothesis import strategies as st

from corpusgen.records import SCHEMA_VERSION, Message, Record, Verdict

SAMPLE_TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def sample_record(**changes: Any) -> Record:
    """A plausible record; name the fields that matter to the test."""
    return replace(_SAMPLE, **changes)


def sample_records(count: int, **changes: Any) -> list[Record]:
    """That many records in the order a shard wants them."""
    return [sample_record(record_id=f"r{index:06}", sample_index=index, **changes) for index in range(count)]


def records() -> st.SearchStrategy[Record]:
    """Any record that a shard can hold."""
    return st.builds(Record, **{field.name: _STRATEGIES[field.name] for field in fields(Record)})


def sorted_records(max_size: int = 8) -> st.SearchStrategy[list[Record]]:
    """Records with different ids, in the order a shard wants them."""
    unsorted = st.lists(records(), max_size=max_size, unique_by=lambda record: record.record_id)
    return unsorted.map(lambda found: sorted(found, key=lambda record: record.record_id))


_SAMPLE = Record(
    record_id="r000000",
    task="word-domain",
    dataset_split="train",
    kind="label",
    sample_index=0,
    parent_ids=(),
    input="a small domesticated carnivore",
    messages=(Message(role="user", content="Definition: a small domesticated carnivore\nKind:"),),
    response="animal",
    reasoning=None,
    trace_kind=None,
    finish_reason="stop",
    truncated=False,
    label="animal",
    label_names=("animal", "plant"),
    label_logprobs=(-0.25, -1.5),
    token_bytes=(b" animal",),
    token_ids=None,
    token_logprobs=(-0.25,),
    topk_bytes=(b" animal", b" plant"),
    topk_ids=None,
    topk_logprobs=(-0.25, -1.5),
    topk_len=(2,),
    logprob_kind="raw",
    tokenizer="scripted",
    tool_calls=None,
    input_tokens=12,
    cached_input_tokens=0,
    output_tokens=1,
    reasoning_tokens=None,
    cost_microusd=17,
    origin_cost_microusd=None,
    price_version="test-1",
    teacher="scripted/test",
    provider="scripted",
    model_requested="test",
    model_served="test",
    route="local",
    host="localhost",
    request_key="00" * 32,
    request_keys=("00" * 32,),
    provider_request_id=None,
    terms_set_id="terms-test",
    licence_expression="Apache-2.0",
    outputs_train="yes",
    source_ids=("source-1",),
    prompt_digest="11" * 32,
    spec_digest="22" * 32,
    run_id="run-1",
    from_cache=False,
    sent_time=SAMPLE_TIME,
    received_time=SAMPLE_TIME,
    latency_ms=12.5,
    pii_kinds=None,
    verdicts=(Verdict(check="exact", kept=True),),
)

_text = st.text(max_size=20)
_texts = st.lists(_text, max_size=3).map(tuple)
_count = st.integers(0, 2**31 - 1)
_money = st.integers(0, 2**53)
_time = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_bytes = st.lists(st.binary(max_size=6), max_size=4).map(tuple)
_ids = st.lists(_count, max_size=4).map(tuple)
_message = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=_text)
_verdict = st.builds(
    Verdict,
    check=_text,
    kept=st.booleans(),
    score=st.none() | st.floats(allow_nan=False),
    reason=st.none() | _text,
)


def _logprobs(width: Literal[16, 32]) -> st.SearchStrategy[tuple[float | None, ...]]:
    return st.lists(st.none() | st.floats(max_value=0, allow_nan=False, width=width), max_size=4).map(tuple)


_STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "record_id": st.text(min_size=1, max_size=20),
    "task": _text,
    "dataset_split": st.sampled_from(["train", "validation", "gold"]),
    "kind": st.sampled_from(["response", "label", "preference", "judgement"]),
    "sample_index": _count,
    "parent_ids": _texts,
    "input": _text,
    "messages": st.lists(_message, max_size=3).map(tuple),
    "response": _text,
    "reasoning": st.none() | _text,
    "trace_kind": st.sampled_from([None, "raw", "summary", "omitted", "encrypted"]),
    "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter", "refusal"]),
    "truncated": st.booleans(),
    "label": st.none() | _text,
    "label_names": st.none() | _texts,
    "label_logprobs": st.none() | _logprobs(32),
    "token_bytes": st.none() | _bytes,
    "token_ids": st.none() | _ids,
    "token_logprobs": st.none() | _logprobs(32),
    "topk_bytes": st.none() | _bytes,
    "topk_ids": st.none() | _ids,
    "topk_logprobs": st.none() | _logprobs(16),
    "topk_len": st.none() | st.lists(st.integers(0, 255), max_size=4).map(tuple),
    "logprob_kind": st.none() | _text,
    "tokenizer": st.none() | _text,
    "tool_calls": st.none() | _text,
    "input_tokens": _count,
    "cached_input_tokens": _count,
    "output_tokens": _count,
    "reasoning_tokens": st.none() | _count,
    "cost_microusd": _money,
    "origin_cost_microusd": st.none() | _money,
    "price_version": _text,
    "teacher": _text,
    "provider": _text,
    "model_requested": _text,
    "model_served": st.none() | _text,
    "route": _text,
    "host": _text,
    "request_key": _text,
    "request_keys": _texts,
    "provider_request_id": st.none() | _text,
    "terms_set_id": _text,
    "licence_expression": _text,
    "outputs_train": _text,
    "source_ids": _texts,
    "prompt_digest": _text,
    "spec_digest": _text,
    "run_id": _text,
    "from_cache": st.booleans(),
    "sent_time": _time,
    "received_time": _time,
    "latency_ms": st.floats(0, 1e9),
    "pii_kinds": st.none() | _texts,
    "verdicts": st.lists(_verdict, max_size=2).map(tuple),
    "calibrated_label": st.none() | _text,
    "calibrated_logprobs": st.none() | st.lists(st.floats(-100, 0, width=32), max_size=4).map(tuple),
    "structured": st.none() | _text,
    "teacher_role": st.sampled_from([None, "primary", "fallback", "mixture"]),
    "conversation": st.none() | _text,
    "schema_version": st.just(SCHEMA_VERSION),
}
