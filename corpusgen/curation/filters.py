"""Which quality filters there are, those a spec asks for, and what they say of texts, answers and groups of answers.

A filter is a file of ``corpusgen/curation/quality/``, named as the filter. It has ``SUMMARY``, ``Settings``,
``EXAMPLE`` (settings as a spec may write them) and one of three functions, which says what the filter needs to see:

* ``check_text(text, settings)``: a text, which may be an answer or, before anything is spent, a prompt
* ``check(record, settings)``: a record
* ``check_group(records, settings)``: all records of one item, to be compared

Each gives a finding or, where there is nothing to say, None.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

import orjson
from pydantic import ValidationError

import corpusgen.curation.quality
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import Settings, Side, TextSettings
from corpusgen.fields import Misplaced, Place
from corpusgen.records import Json, Record, Verdict
from corpusgen.spec import mistakes_of

Needs: TypeAlias = Literal["text", "record", "group"]
Scores: TypeAlias = Mapping[str, float]
"""What a judge gave, by ``record_id``, on its own scale."""

_FUNCTIONS: Final[dict[str, Needs]] = {"check_text": "text", "check": "record", "check_group": "group"}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One filter with its settings."""

    name: str
    settings: Settings
    module: ModuleType

    @property
    def needs(self) -> Needs:
        """What it looks at: a text, a record, or all records of an item."""
        return needs_of(self.module)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Whether it looks at answers, at prompts, or at both."""
        return self.settings.sides if isinstance(self.settings, TextSettings) else ("answer",)

    def on_prompt(self, text: str) -> Finding | None:
        """What it says of a prompt; nothing where prompts are not its business."""
        return self._told(self._run("check_text", text)) if "prompt" in self.sides else None

    def on_answers(self, records: Sequence[Record]) -> list[Finding | None]:
        """What it says of each of the records of one item."""
        if "answer" not in self.sides:
            return [None] * len(records)
        if self.needs == "group":
            return [self._told(finding) for finding in self._run("check_group", records)] if records else []
        return [self._told(self._on_record(record)) for record in records]

    def _on_record(self, record: Record) -> Finding | None:
        if record.tool_calls is not None and not record.response.strip():
            return None  # the calls are the answer, and no text
        found: Finding | None
        found = self._run("check", record) if self.needs == "record" else self._run("check_text", record.response)
        return found

    def _run(self, function: str, given: Any) -> Any:
        return getattr(self.module, function)(given, self.settings)

    def _told(self, finding: Finding | None) -> Finding | None:
        if finding is None or finding.kept or self.settings.action == "drop":
            return finding
        return replace(finding, kept=True)


def names() -> tuple[str, ...]:
    """Every filter there is, by name."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(corpusgen.curation.quality.__path__)))


def module_of(name: str) -> Any:
    """The file of a filter."""
    return importlib.import_module(f"corpusgen.curation.quality.{name}")


def needs_of(module: ModuleType) -> Needs:
    """What a filter's file looks at."""
    return next(needs for function, needs in _FUNCTIONS.items() if hasattr(module, function))


def load(config: Mapping[str, Json], where: Place = ()) -> tuple[Filter, ...]:
    """The filters of ``curate.quality``, in the order they are written in.

    ``config`` has for each filter's name its settings, or a list of them to use it several times. Raises Misplaced with
    everything that is wrong, each at its place below ``where``.
    """
    filters: list[Filter] = []
    wrong: list[tuple[Place, str]] = []
    for name, written in config.items():
        if name not in names():
            wrong.append(((*where, name), _unknown(name)))
            continue
        for place, settings in _each(written, (*where, name)):
            found = _loaded(name, settings, place)
            wrong.extend(found) if isinstance(found, list) else filters.append(found)
    if wrong:
        raise Misplaced(*wrong)
    return tuple(filters)


def _each(written: Json, place: Place) -> list[tuple[Place, Json]]:
    if isinstance(written, list):
        return [((*place, at), one) for at, one in enumerate(written)]
    return [(place, {} if written is None else written)]


def _loaded(name: str, written: Json, place: Place) -> Filter | list[tuple[Place, str]]:
    module = module_of(name)
    try:
        # Through JSON, as the spec itself: strict models take lists as tuples from there only.
        settings = module.Settings.model_validate_json(orjson.dumps(written))
    except ValidationError as error:
        return [((*place, *deeper), message) for deeper, message in mistakes_of(error, module.Settings)]
    return Filter(name=name, settings=settings, module=module)


def _unknown(name: str) -> str:
    close = get_close_matches(name, names(), n=2)
    meant = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"no such filter{meant or ';'} there are: {', '.join(names())}"


def judged(record: Record, scores: Scores, verdict: str = "judge", reason: str | None = None) -> Record:
    """The record with its judge's score, where it has one, as the filter ``judge`` reads it.

    ``reason`` says who judged.
    """
    if record.record_id not in scores:
        return record
    given = Verdict(check=verdict, kept=True, score=scores[record.record_id], reason=reason)
    return replace(record, verdicts=(*record.verdicts, given))
