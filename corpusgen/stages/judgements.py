"""What a judge is asked about an answer, and what it said: a task of its own, made of another's ``curate.judge``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from corpusgen.corpus import Clock
from corpusgen.curate_fields import Curate, Judge
from corpusgen.curation.filters import judged
from corpusgen.prompting.prompt_file import PromptFile, load_prompt
from corpusgen.prompting.prompts import Item, Prompt, Prompter
from corpusgen.records import Json, Message, Record, Request
from corpusgen.spec import Asking, Located
from corpusgen.stages.judges import CHECK, told
from corpusgen.stages.task import Task, connect, request_for
from corpusgen.stages.terms.quarantine import Quarantine
from corpusgen.store.shards import read_columns
from corpusgen.teachers.teacher import TeacherCard

QUOTED: Final = ("question", "prompt", "response")
"""Texts of strangers and of models: wherever a judge's prompt shows them, they stand between markers."""
INPUTS: Final = (*QUOTED, "min", "max")
FEW: Final = 20
"""A scale of so many whole numbers is spelt out for a server that holds answers to a schema: not all know ranges."""


def judging_of(task: Task) -> Task | None:
    """The task of scoring a task's answers; None where its spec names no judge. Raises SpecError or PromptError."""
    part = task.spec.curate.judge
    if part is None:
        return None
    file = load_prompt(task.located.resolve(part.prompt))
    _check_inputs(task.located, file)
    shown = tuple(name for name in QUOTED if name in file.inputs)
    located, schema = _located(task.located, part), _schema(part)
    prompter = Prompter(located=located, file=replace(file, quote=shown), examples="", example_sources=())
    filters = "judge" in task.spec.curate.quality
    return Task(located=located, prompter=prompter, registry=task.registry, schema=schema, judges=True, filters=filters)


def _check_inputs(located: Located, file: PromptFile) -> None:
    strange = [name for name in file.inputs if name not in INPUTS]
    if strange or "response" not in file.inputs:
        wrong = f"has the input {strange[0]!r}" if strange else "lacks the input response"
        raise located.error(f"{file.file} {wrong}; a judge sees {', '.join(INPUTS)}", "curate", "judge", "prompt")
    if file.api != "chat" or file.example is not None:
        wrong = "is api: completion" if file.api != "chat" else "shows worked examples"
        message = f"{file.file} {wrong}; a judge is asked in a chat, without examples from a file"
        raise located.error(message, "curate", "judge", "prompt")


def _located(located: Located, part: Judge) -> Located:
    """The spec of the judging, whose teacher stands at the lines of the judge."""
    spec, here = located.spec, ("curate", "judge", "teacher")
    lines = {("teachers", 0, *place[3:]): line for place, line in located.lines.items() if place[:3] == here}
    others = {place: line for place, line in located.lines.items() if place[:1] != ("teachers",)}
    changed = {
        "name": f"{spec.name}.judge",
        "prompt": part.prompt,
        "input": "response",
        "teachers": (part.teacher,),
        "examples": None,
        "answer_schema": _schema(part),
        "answer_schema_file": None,
        "tools": (),
        "asking": Asking(order="file"),
        "curate": Curate(pii=spec.curate.pii),
    }
    return replace(located, spec=spec.model_copy(update=changed), lines={**others, **lines})


def _schema(part: Judge) -> Json:
    """A score and why, as a server can hold an answer to it."""
    low, high = _plain(part.min), _plain(part.max)
    score: Json = {"type": "number", "minimum": low, "maximum": high}
    if isinstance(low, int) and isinstance(high, int) and high - low < FEW:
        score = {"type": "integer", "enum": list(range(low, high + 1))}
    fields = {"why": {"type": "string"}, "score": score}
    return {"type": "object", "properties": fields, "required": ["why", "score"], "additionalProperties": False}


def _told_schema(part: Judge) -> Json:
    """The same for a teacher that is only told of it: a bare number will do, and it may lie between two."""
    score = {"type": "number", "minimum": _plain(part.min), "maximum": _plain(part.max)}
    fields = {"why": {"type": "string"}, "score": score}
    return {"anyOf": [{"type": "object", "properties": fields, "required": ["score"]}, score]}


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def score_in(structured: str | None, part: Judge) -> float | None:
    """The score in what a judge answered, where that is one and on the scale."""
    value = None if structured is None else orjson.loads(structured)
    if isinstance(value, dict):
        value = value.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not part.min <= value <= part.max:
        return None
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Makes of an answer the question that a judge is asked about it."""

    task: Task
    """The task of the judging."""
    part: Judge
    card: TeacherCard

    @classmethod
    def of(cls, task: Task, card: TeacherCard) -> Judging:
        """What the judge of a task is asked; the task has one."""
        part, judging = task.spec.curate.judge, task.judging
        assert part is not None
        assert judging is not None
        held = card.capabilities.json_schema == "json_schema"
        return cls(task=judging if held else replace(judging, schema=_told_schema(part)), part=part, card=card)

    def prompt(self, record: Record, ordinal: int = 0) -> Prompt:
        """What it is asked about an answer; the same about equal answers."""
        item = Item(
            item_id=record.record_id,
            split="train",
            input=record.input,
            messages=self._messages(record.input, record.messages, record.response),
            source_ids=record.source_ids,
            gold=None,
        )
        return Prompt(item=item, request=request_for(self.task, self.card, item, 0), ordinal=ordinal)

    def foreseen(self, asked: Request) -> Request:
        """What it will be asked about an answer that is not there yet, as far as that is known."""
        question = asked.messages[-1].content
        messages = self._messages(question, asked.messages, "")
        item = Item(item_id="", split="train", input=question, messages=messages, source_ids=(), gold=None)
        return request_for(self.task, self.card, item, 0)

    def _messages(self, question: str, prompt: Sequence[Message], response: str) -> tuple[Message, ...]:
        file, part = self.task.prompter.file, self.part
        values = {
            "question": question,
            "prompt": _conversation(prompt),
            "response": response,
            "min": f"{part.min:g}",
            "max": f"{part.max:g}",
        }
        return file.messages({name: values[name] for name in file.inputs}, "")


def _conversation(messages: Iterable[Message]) -> str:
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in messages)


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """What a task's judge said, by what it was asked: judgements by another prompt or scale are not among it."""

    judging: Judging
    ids: npt.NDArray[np.uint64]
    """The first 64 bits of the judgements' record ids, sorted."""
    scores: npt.NDArray[np.float64]

    @classmethod
    def read(cls, task: Task, paths: Iterable[Path], clock: Clock, quarantine: Quarantine | None = None) -> Judgements:
        """The judgements in some shards, for the answers of a task that has a judge; none of those put aside."""
        assert task.judging is not None
        judging = Judging.of(task, connect(task.judging, clock, sending=False).card)
        found = dict(_scored(paths, judging.part, quarantine))
        ids = np.array(sorted(found), np.uint64)
        scores = np.array([found[one] for one in ids.tolist()], np.float64)
        return cls(judging=judging, ids=ids, scores=scores)

    def on(self, record: Record) -> Record:
        """The record with its judge's score as a verdict, where it has one."""
        name = self.judging.prompt(record).record_id
        at = int(np.searchsorted(self.ids, np.uint64(_mark(name))))
        if at == len(self.ids) or int(self.ids[at]) != _mark(name):
            return record
        score = {record.record_id: float(self.scores[at])}
        return judged(record, score, CHECK, told(self.judging.card.name, name))


_READ: Final = ["record_id", "structured", "teacher", "terms_set_id", "model_requested", "model_served", "sent_time"]


def _scored(paths: Iterable[Path], part: Judge, quarantine: Quarantine | None) -> Iterator[tuple[int, float]]:
    for path in paths:
        table = read_columns([path], _READ).to_pydict()
        for name, structured, by, terms, asked, served, sent in zip(*(table[one] for one in _READ), strict=True):
            aside = quarantine is not None and quarantine.why(by, terms, asked, served, sent.date()) is not None
            if not aside and (score := score_in(structured, part)) is not None:
                yield _mark(name), score


def _mark(record_id: str) -> int:
    return int(record_id[:16], 16)
