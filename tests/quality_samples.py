"""Texts to test quality filters with: the labelled sets of ``quality_texts/``, and records that say a text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from record_samples import sample_record

from corpusgen.curation import filters
from corpusgen.curation.filters import Filter
from corpusgen.curation.finding import Finding
from corpusgen.records import Json, Message, Record

_FOLDER = Path(__file__).parent / "quality_texts"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Answers a filter is to drop, and answers it is to let pass, beside those that any filter lets pass."""

    flagged: tuple[Record, ...]
    passed: tuple[Record, ...]


def answer(text: str, *, prompt: str = "Tell me.", **changes: Any) -> Record:
    """A record of a teacher that answered with this text."""
    plain: dict[str, Any] = {
        "kind": "response",
        "label": None,
        "label_names": None,
        "label_logprobs": None,
        "messages": (Message(role="user", content=prompt),),
    }
    return sample_record(response=text, **{**plain, **changes})


@cache
def read(name: str) -> Json:
    """A file of texts."""
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def ordinary() -> tuple[Record, ...]:
    """Answers as they should be."""
    return tuple(map(answer, read("ordinary")))


def labelled(name: str) -> Labelled:
    """The set of one filter."""
    texts = read(name)
    return Labelled(
        flagged=tuple(map(_record, texts["flagged"])), passed=tuple(map(_record, texts.get("passed", ()))) + ordinary()
    )


def _record(text: Json) -> Record:
    if isinstance(text, str):
        return answer(text)
    if "prompt" in text:
        return answer(text["answer"], prompt=text["prompt"])
    return answer(text["begin"] + text["repeat"] * text["times"] + text.get("end", ""))


def made(name: str, **settings: Json) -> Filter:
    """One filter with settings."""
    (one,) = filters.load({name: settings})
    return one


def said(name: str, record: Record, **settings: Json) -> Finding | None:
    """What one filter says of one record."""
    return made(name, **settings).on_answers([record])[0]


def drops(name: str, record: Record, **settings: Json) -> bool:
    """Whether one filter drops one record."""
    finding = said(name, record, **settings)
    return finding is not None and not finding.kept
