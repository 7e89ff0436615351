"""Batches as each vendor's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from corpusgen.corpus import moment
from corpusgen.records import Json
from corpusgen.serve.batches.lines import endpoint_of
from corpusgen.serve.batches.rows import KEPT_US, LIFE_US, UNFINISHED, Batch, LineState, State

Counts = Mapping[LineState, int]
_ENDS: Final[Mapping[State, str]] = {
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
}


def for_openai(batch: Batch, counts: Counts) -> dict[str, Json]:
    """A batch as OpenAI tells it."""
    facts, failed = batch.facts, batch.state == "failed"
    errors = {"object": "list", "data": facts.get("errors", [])}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": endpoint_of(batch.wire),
        "model": None,
        "errors": errors if failed else None,
        "input_file_id": facts.get("input_file_id"),
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": facts.get("output_file_id"),
        "error_file_id": facts.get("error_file_id"),
        **_times(batch),
        "request_counts": {
            "total": sum(counts.values()),
            "completed": counts.get("answered", 0),
            "failed": counts.get("failed", 0),
        },
        "metadata": facts.get("metadata"),
        "usage": _usage(facts.get("usage")),
    }


def _times(batch: Batch) -> dict[str, Json]:
    facts = batch.facts
    told = {
        "created_at": batch.made_us,
        "in_progress_at": facts.get("began_us"),
        "finalizing_at": facts.get("finalizing_us"),
        "expires_at": batch.made_us + LIFE_US,
        "cancelling_at": facts.get("cancelling_us"),
        **{name: batch.ended_us if batch.state == state else None for state, name in _ENDS.items()},
    }
    return {name: None if time is None else time // 1_000_000 for name, time in told.items()}


def _usage(usage: Json) -> dict[str, Json]:
    read, cached, written, thought = usage or (0, 0, 0, 0)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + written,
    }


def for_anthropic(batch: Batch, counts: Counts, origin: str, now_us: int) -> dict[str, Json]:
    """A batch as Anthropic tells it; its results are told by their whole address."""
    over, cancelling = batch.state not in UNFINISHED, batch.facts.get("cancelling_us")
    archived = over and batch.ended_us is not None and now_us - batch.ended_us > KEPT_US
    status = "ended" if over else "canceling" if batch.state == "cancelling" else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": _tallies(counts, over),
        "created_at": _spelt(batch.made_us),
        "expires_at": _spelt(batch.made_us + LIFE_US),
        "ended_at": _spelt(batch.ended_us),
        "cancel_initiated_at": _spelt(cancelling),
        "archived_at": _spelt((batch.ended_us or 0) + KEPT_US) if archived else None,
        "results_url": f"{origin}/v1/messages/batches/{batch.id}/results" if over and not archived else None,
    }


def _tallies(counts: Counts, over: bool) -> dict[str, Json]:
    """How many lines came to what; as with the vendor, all of them are processing until the batch has ended."""
    if not over:
        return {"processing": sum(counts.values()), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    return {
        "processing": counts.get("waiting", 0),
        "succeeded": counts.get("answered", 0),
        "errored": counts.get("failed", 0),
        "canceled": counts.get("cancelled", 0),
        "expired": counts.get("expired", 0),
    }


def _spelt(time_us: int | None) -> str | None:
    return None if time_us is None else moment(time_us).isoformat().replace("+00:00", "Z")
