"""What was said in a record: its turns, in the words and blocks they were said in, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

_LEAST_SURE: Final = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a turn: ``kind`` is text, reasoning, a call of a tool, its result, or something else."""

    kind: str
    text: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn."""

    role: str
    parts: Sequence[Part]


def turns(record: Mapping[str, Any]) -> list[Turn]:
    """The turns before the answer; in the client's own words where the record has those."""
    whole = _json(record.get("conversation"))
    said = whole.get("messages") if isinstance(whole, dict) else None
    if isinstance(said, list) and said:
        return [_turn(one) for one in _objects(said)]
    return [Turn(role=str(one["role"]), parts=tuple(_parts(one["content"]))) for one in record.get("messages") or ()]


def tools(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The tools that could be called: name, and everything that was said of it."""
    whole = _json(record.get("conversation"))
    offered = whole.get("tools") if isinstance(whole, dict) else None
    return [(_tool_name(one), _pretty(one)) for one in _objects(offered)]


def answer(record: Mapping[str, Any]) -> Turn:
    """The answer as a turn: reasoning, text, calls of tools."""
    parts = [Part(kind="reasoning", text=record["reasoning"])] if record.get("reasoning") else []
    parts += [Part(kind="text", text=record["response"])] if record["response"] else []
    parts += [_call(one) for one in _objects(_json(record.get("tool_calls")))]
    return Turn(role="assistant", parts=tuple(parts))


def _turn(one: Mapping[str, Any]) -> Turn:
    role = str(one.get("role") or one.get("type") or "item")
    parts = (
        [Part(kind="reasoning", text=one["reasoning_content"])] if isinstance(one.get("reasoning_content"), str) else []
    )
    parts += _parts(one.get("content"))
    parts += [_call(call) for call in _objects(one.get("tool_calls"))]
    if not parts:  # an item of another wire: a call, a result, something that came later
        parts = [Part(kind=str(one.get("type") or "item"), text=_pretty(one), name=str(one.get("name") or ""))]
    return Turn(role=role, parts=tuple(parts))


def _parts(content: Any) -> list[Part]:
    if content in (None, "", []):
        return []
    if isinstance(content, str):
        return [Part(kind="text", text=content)]
    return [_block(one) for one in content] if isinstance(content, list) else [Part(kind="item", text=_pretty(content))]


def _block(one: Any) -> Part:
    if not isinstance(one, dict):
        return Part(kind="text", text=str(one))
    kind = str(one.get("type") or "item")
    if isinstance(one.get("text"), str):
        return Part(kind="text", text=one["text"])
    if isinstance(one.get("thinking"), str):
        return Part(kind="reasoning", text=one["thinking"])
    if kind == "tool_use":
        return Part(kind="tool call", name=str(one.get("name")), text=_pretty(one.get("input")))
    if kind == "tool_result":
        inner = one.get("content")
        return Part(kind="tool result", text=inner if isinstance(inner, str) else _pretty(inner))
    return Part(kind=kind, text=_pretty(one))


def _call(one: Mapping[str, Any]) -> Part:
    of = one.get("function") if isinstance(one.get("function"), dict) else one
    arguments = of.get("arguments", of.get("input")) if isinstance(of, Mapping) else None
    parsed = _json(arguments) if isinstance(arguments, str) else arguments
    text = arguments if isinstance(arguments, str) and parsed is None else _pretty(parsed)
    return Part(kind="tool call", name=str(of.get("name") or "") if isinstance(of, Mapping) else "", text=text)


def _tool_name(one: Mapping[str, Any]) -> str:
    of = one.get("function")
    return str((of.get("name") if isinstance(of, dict) else None) or one.get("name") or one.get("type") or "tool")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _json(text: Any) -> Any:
    if not isinstance(text, str) or not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


# --- Log-probabilities -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """How sure a teacher was: of each label, or of the tokens of its text."""

    labels: Sequence[tuple[str, float, float]] = ()
    """(label, log-probability, probability), the likeliest first."""
    tokens: int = 0
    mean: float = math.nan
    perplexity: float = math.nan
    least: Sequence[tuple[int, str, float]] = ()
    """(place, token, log-probability) of the tokens it was least sure of."""
    alternatives: int = 0


def sureness(record: Mapping[str, Any]) -> Sureness | None:
    """A summary of a record's log-probabilities; None where it has none."""
    labels = sorted(_labels(record), key=lambda one: -one[1])
    known = [(at, value) for at, value in enumerate(record.get("token_logprobs") or ()) if value is not None]
    if not labels and not known:
        return None
    mean = sum(value for _, value in known) / len(known) if known else math.nan
    spelled = record.get("token_bytes") or ()
    least = sorted(known, key=lambda one: one[1])[:_LEAST_SURE] if len(known) > 1 else []
    return Sureness(
        labels=labels,
        tokens=len(known),
        mean=mean,
        perplexity=math.exp(-mean) if known and mean > -500 else math.nan,
        least=[(at + 1, _spelled(spelled, at), value) for at, value in least],
        alternatives=max(record.get("topk_len") or (0,)),
    )


def _labels(record: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    values = record.get("calibrated_logprobs") or record.get("label_logprobs") or ()
    for name, value in zip(record.get("label_names") or (), values, strict=False):
        if value is not None:
            yield name, value, math.exp(min(0.0, value))


def _spelled(spelled: Sequence[bytes], at: int) -> str:
    return spelled[at].decode("utf-8", "replace") if at < len(spelled) else ""
