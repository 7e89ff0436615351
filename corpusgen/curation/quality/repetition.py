"""Texts that go in circles: repeated lines and phrases, a looping end, a text that packs to next to nothing.

The shares and their limits are those of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from
Training Gopher" (arXiv 2112.11446), table A1, counted as the paper does: characters in repeated n-grams over all.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, TypeAlias

from pydantic import Field

from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import TextSettings, bare_words, fails, passes, shown, without_code, words_in
from corpusgen.records import Json

SUMMARY: Final = "repeated lines, phrases and loops"
EXAMPLE: Final[dict[str, Json]] = {}
LOOKED_AT: Final = 100_000
"""Characters of a long text whose lines and phrases are counted; its end is looked at as well."""

_TOP_NGRAMS: Final = {2: 0.20, 3: 0.18, 4: 0.16}
"""Most of all characters that the most frequent n-gram may hold."""
_REPEATED_NGRAMS: Final = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Most of all characters that n-grams which came before may hold."""
_LEAST_LINES: Final = 5
_LEAST_TIMES: Final = 3
"""A phrase that comes twice is no loop yet."""
_LOOP_TIMES: Final = 5
_LONGEST_UNIT: Final = 400
_LEAST_LOOP: Final = 60
_LEAST_BYTES: Final = 400

_MARKER: Final = re.compile(r"^[ \t]*(?:[-*+•]|(?:\d{1,4}|[A-Za-z])[.):])[ \t]+", re.MULTILINE)
"""A loop over a list counts on."""

_Measure: TypeAlias = tuple[str, str, float, float]
"""Reason, metric, value and limit."""


class Settings(TextSettings):
    """How much of a text may repeat itself."""

    strictness: Annotated[float, Field(gt=0, le=10)] = Field(
        1.0, description="Every limit of Gopher's table is divided by this: 2 lets half as much repetition pass"
    )
    min_words: Annotated[int, Field(ge=10, le=100_000)] = Field(
        100,
        description="Words a text must have for its phrases to be counted; loops and lines are told in shorter ones",
    )
    min_packed: Annotated[float, Field(ge=0, le=1)] = Field(
        0.08, description="Least size after zlib over the size before, for texts of 400 bytes or more"
    )


def check_text(text: str, settings: Settings) -> Finding | None:
    """Whether the text says new things; the score is the share that is nearest to, or furthest past, its limit."""
    if unit := loop_at_end(_MARKER.sub("", text[-LOOKED_AT:])):
        return fails("repetition", "ends in a loop", detail=shown(unit), metric="repeats", score=_LOOP_TIMES)
    worst = max(_measures(text, settings), key=_excess, default=None)
    packed = packed_share(text)
    if packed is not None and packed < settings.min_packed:
        metric, limit = "size packed / size", settings.min_packed
        return fails("repetition", "repeats itself throughout", metric=metric, score=packed, threshold=limit)
    if worst is None:
        return None
    reason, metric, value, limit = worst
    if value > limit:
        return fails("repetition", reason, metric=metric, score=value, threshold=limit)
    return passes("repetition", metric=metric, score=value, threshold=limit)


def _excess(measure: _Measure) -> float:
    return measure[2] / measure[3]


def _measures(text: str, settings: Settings) -> Iterator[_Measure]:
    prose = _MARKER.sub("", without_code(text[:LOOKED_AT]))
    for name, value, limit in _repeated_lines(prose):
        yield "repeats its lines", name, value, limit / settings.strictness
    words = bare_words(prose)
    if len(words) >= settings.min_words:
        for name, value, limit in _repeated_phrases(words):
            yield "repeats its phrases", name, value, limit / settings.strictness


def _repeated_lines(text: str) -> Iterator[tuple[str, float, float]]:
    # A bracket on its own, a rule, or a table's frame may stand many times.
    lines = [line for line in map(str.strip, text.casefold().splitlines()) if len(words_in(line)) > 1]
    if len(lines) >= _LEAST_LINES:
        times = Counter(lines)
        repeated = [line for line in lines if times[line] > 1]
        extra = len(lines) - len(times)
        yield "share of repeated lines", extra / len(lines), 0.30
        characters = sum(map(len, repeated)) - sum(len(line) for line, count in times.items() if count > 1)
        yield "share of characters in repeated lines", characters / sum(map(len, lines)), 0.20


def _repeated_phrases(words: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    whole = sum(map(len, words)) or 1
    for size, limit in _TOP_NGRAMS.items():
        yield f"share of characters in the most frequent {size} words", _top(words, size) / whole, limit
    for size, limit in _REPEATED_NGRAMS.items():
        yield f"share of characters in repeated {size} words", _repeated(words, size) / whole, limit


def _top(words: Sequence[str], size: int) -> int:
    """Characters in the most frequent n-gram; of equally frequent ones, in the longest."""
    counts = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    most = max(counts.values(), default=0)
    if most < _LEAST_TIMES:
        return 0
    return most * max(sum(map(len, ngram)) for ngram, count in counts.items() if count == most)


def _repeated(words: Sequence[str], size: int) -> int:
    """Characters in n-grams that came before, none of them counted twice."""
    seen: set[tuple[str, ...]] = set()
    characters = at = 0
    while at + size <= len(words):
        ngram = tuple(words[at : at + size])
        if ngram in seen:
            characters += sum(map(len, ngram))
            at += size
        else:
            seen.add(ngram)
            at += 1
    return characters


def loop_at_end(text: str) -> str | None:
    """What the text's end says five times or more in a row, if that is 60 characters or longer."""
    ending = text.rstrip()[-_LOOP_TIMES * _LONGEST_UNIT :]
    for size in range(1, min(_LONGEST_UNIT, len(ending) // _LOOP_TIMES) + 1):
        unit = ending[-size:]
        times = max(_LOOP_TIMES, -(-_LEAST_LOOP // size))
        if ending.endswith(unit * times) and any(map(str.isalpha, unit)):
            return unit
    return None


def packed_share(text: str) -> float | None:
    """Size after zlib over size before; None for a text too short to tell."""
    raw = text[:LOOKED_AT].encode("utf-8", "surrogatepass")
    return len(zlib.compress(raw, 6)) / len(raw) if len(raw) >= _LEAST_BYTES else None
