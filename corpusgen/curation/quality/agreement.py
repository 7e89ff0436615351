"""Of several answers to one item, by samples or teachers: those that most of them agree with."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.exact import normalised
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import bare_words, fails, passes, remark
from corpusgen.records import Json, Record

SUMMARY: Final = "samples or teachers disagree"
EXAMPLE: Final[dict[str, Json]] = {"compare": "last_number", "min_share": 0.6}
METRIC: Final = "share of answers that agree"
LOOKED_AT: Final = 100_000
_NUMBER: Final = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


class Settings(judging.Settings):
    """When answers agree, how many must, and what happens to the others. Labels are compared by name."""

    compare: Literal["text", "last_line", "last_number"] = Field(
        "text", description="What of a text is compared; last_line and last_number, for worked answers, must be equal"
    )
    similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8,
        description="Share of two texts' words that both must have to agree; 1: equal but for case and spacing",
    )
    min_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of the answers that must agree; with less, or a tie, the whole group fails"
    )
    dissenters: Literal["drop", "drop_all"] = Field(
        "drop", description="Who fails where some differ from the majority: they alone, or drop_all: the whole group"
    )
    min_answers: Annotated[int, Field(ge=2, le=1_000)] = Field(
        2, description="Answers a group must have to be judged; those of smaller ones are kept with a remark"
    )


def check_group(records: Sequence[Record], settings: Settings) -> list[Finding | None]:
    """For each record of one item whether most of the others agree with it."""
    if len(records) < settings.min_answers:
        return [remark("agreement", "too few answers to compare")] * len(records)
    sides = _sides(records, settings)
    largest = max(map(len, sides))
    share = largest / len(records)
    chosen = {frozenset(side) for side in sides if len(side) == largest and side}
    if len(chosen) != 1 or share < settings.min_share:
        return [_failed("no majority", share, settings)] * len(records)
    if settings.dissenters == "drop_all" and largest < len(records):
        return [_failed("not unanimous", share, settings)] * len(records)
    majority = next(iter(chosen))
    return [_judged(at in majority, share, settings) for at in range(len(records))]


def _judged(agrees: bool, share: float, settings: Settings) -> Finding:
    if agrees:
        return passes("agreement", metric=METRIC, score=share, threshold=settings.min_share)
    return _failed("differs from the majority", share, settings)


def _failed(reason: str, share: float, settings: Settings) -> Finding:
    return fails("agreement", reason, metric=METRIC, score=share, threshold=settings.min_share)


def _sides(records: Sequence[Record], settings: Settings) -> list[set[int]]:
    """For each record which ones agree with it, itself included; for one that says nothing, none."""
    said = [_said(record, settings) for record in records]
    agree = _agreement(said, settings)
    return [{other for other in range(len(said)) if said[at] and agree(at, other)} for at in range(len(said))]


def _agreement(said: Sequence[str], settings: Settings) -> Callable[[int, int], bool]:
    if settings.compare != "text" or settings.similarity == 1:
        return lambda one, other: said[one] == said[other]
    words: list[frozenset[Hashable]] = [frozenset(bare_words(text)) for text in said]

    def alike(one: int, other: int) -> bool:
        if said[one] == said[other]:
            return True
        common = len(words[one] & words[other])
        return common >= settings.similarity * max(1, len(words[one] | words[other]))

    return alike


def _said(record: Record, settings: Settings) -> str:
    """What counts as the answer; nothing where there is none."""
    if record.kind == "label":
        return record.calibrated_label or record.label or ""
    text = record.response[-LOOKED_AT:]
    if settings.compare == "last_number":
        numbers = _NUMBER.findall(text)
        return _plain_number(numbers[-1]) if numbers else ""
    if settings.compare == "last_line":
        text = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return normalised(text)


def _plain_number(written: str) -> str:
    """1,000.50 and 1000.5 are one number."""
    plain = written.replace("−", "-").replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain and "/" not in plain else plain
