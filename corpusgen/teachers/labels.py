"""Which label an answer gives, and how likely the teacher thought each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corpusgen.errors import UsageError
from corpusgen.records import Completion, TokenLogprobs


@dataclass(frozen=True, kw_only=True)
class LabelReading:
    """The label, and the raw log-probability of each label in the order of its names; None where not known."""

    label: str | None
    logprobs: tuple[float | None, ...]


def read_label(names: Sequence[str], first_tokens: Sequence[bytes] | None, completion: Completion) -> LabelReading:
    """The label of an answer: the likeliest one, or the one written out if there are no log-probabilities.

    A label among no runners-up has None, never a constant: it is less likely than the last one given, and no more is
    known.
    """
    likely = _first_position(completion.logprobs)
    if first_tokens is None:
        logprobs = tuple(_by_beginning(name, names, likely) for name in names)
    else:
        logprobs = tuple(likely.get(token) for token in first_tokens)
    best = max((value for value in logprobs if value is not None), default=None)
    label = _written(names, completion.text) if best is None else names[logprobs.index(best)]
    return LabelReading(label=label, logprobs=logprobs)


def check_first_tokens(names: Sequence[str], tokens: Sequence[bytes]) -> None:
    """Raise a UsageError if a teacher cannot tell two labels apart by their first token."""
    sharing: dict[bytes, list[str]] = {}
    for name, token in zip(names, tokens, strict=True):
        sharing.setdefault(token, []).append(name)
    for token, same in sharing.items():
        if len(same) > 1 or not token.strip():
            found = token.decode(errors="replace")
            labels = " and ".join(map(repr, same))
            raise UsageError(
                f"labels.names: {labels} begin with the token {found!r}, and labels are told apart by their first "
                "token; rename all but one"
                if len(same) > 1
                else f"labels.names: {labels} begins with the empty token {found!r}; rename it"
            )


def _first_position(logprobs: TokenLogprobs | None) -> dict[bytes, float]:
    if logprobs is None or not logprobs.topk_len:
        return {}
    likely = logprobs.at(0)
    chosen = logprobs.token_logprobs[0]
    # A sampled token need not be among the runners-up, but its own value is just as good.
    return likely if chosen is None else {logprobs.token_bytes[0]: chosen} | likely


def _by_beginning(name: str, names: Sequence[str], likely: dict[bytes, float]) -> float | None:
    values = [value for token, value in likely.items() if _only_label(token, names) == name]
    return _log_sum(values) if values else None


def _only_label(token: bytes, names: Sequence[str]) -> str | None:
    text = token.decode(errors="replace").strip().casefold()
    whole = [name for name in names if name.casefold() == text]
    # One letter is an article or an initial more often than the start of a label.
    begun = whole or [name for name in names if len(text) > 1 and name.casefold().startswith(text)]
    return begun[0] if len(begun) == 1 else None


def _log_sum(values: Sequence[float]) -> float:
    # "Animal", " animal" and " an" are ways of beginning the same answer: their probabilities add up.
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values)) if len(values) > 1 else most


def _written(names: Sequence[str], text: str) -> str | None:
    answer = text.strip().casefold()
    return next((name for name in names if name.casefold() == answer), None)
