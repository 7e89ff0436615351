"""A task to start from, written from what was recorded: its spec, its prompt, and the inputs as seeds.

The wording that all calls of a cluster share becomes the prompt; what differs becomes its variables. Nothing that is
there is written over, and a folder appears whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from corpusgen.corpus import Clock
from corpusgen.errors import CorpusgenError, UsageError
from corpusgen.records import Json
from corpusgen.stages.loading import load_task
from corpusgen.stages.task import connect
from corpusgen.stages.traffic.clusters import Cluster, telling_words
from corpusgen.stages.traffic.ranking import Ranked, normal
from corpusgen.stages.traffic.reading import Heard, mark_of, turns_in
from corpusgen.stages.traffic.templates import (
    ADDRESS,
    NUMBER,
    QUOTED,
    RUN,
    Cut,
    Template,
    Words,
    common_tail,
    cut,
)

DEFAULT_MAX_TOKENS: Final = 1_024
TOP_LOGPROBS: Final = 20
_SLOTS: Final = {NUMBER: "number", QUOTED: "quoted", ADDRESS: "address"}
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_BLOCK: Final = re.compile(r"^(system|user|assistant|messages):[ \t]*$", re.MULTILINE)
_OWN_LOGPROBS: Final = ("top_logprobs", "logprobs", "n", "response_format", "stream", "seed")
_QUESTION: Final = """\
intended_use:  # TO ANSWER, the terms are judged by it: who gets the student, may it compete, does it earn money?
  # student_distribution: internal | hosted | weights_released
  # student_competes: "no" | "yes" | unknown
  # commercial: true | false
"""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a task takes over from whoever recorded its calls."""

    teacher: Mapping[str, Json]
    """As a spec writes it, parameters aside."""
    intended_use: Mapping[str, Json] | None
    """None: nobody said what for."""
    sources: Sequence[Mapping[str, Json]]
    source: str
    more: Mapping[str, Json]
    """Further fields of the run's spec that count for its rights: organisation, agreements, egress."""
    completes: bool = True
    """Whether the teacher goes on with a text, as well as it answers a chat."""
    remark: str | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """A task that was written."""

    cluster: int
    folder: Path
    kind: str
    seeds: int
    left_out: int
    """Calls whose input is empty or not of the template, and repeats."""
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """The task for a program."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "folder": str(self.folder), "remarks": list(self.remarks)}


# --- Wording and slots -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A prompt with its variables, and how to read their values in a call."""

    blocks: tuple[tuple[str, str], ...]
    """Role and text; the text a template already."""
    names: tuple[str, ...]
    input: str
    api: str
    values: Callable[[Heard], dict[str, Any] | None]
    """The variables of a call; None where it is not of this wording, or one of them is empty."""


def wording_of(cluster: Cluster, examples: Sequence[Heard]) -> Wording:
    """The wording that the examples share. They are of one template, where the cluster has one."""
    template = cluster.templates[0] if cluster.templates else None
    alike = len({heard.before for heard in examples}) == 1
    turns = turns_in(examples[0].before)
    systems = [turns_in(heard.before)[:1] for heard in examples]
    api = examples[0].api
    if alike and all(role in _ROLES and text.strip() for role, text in turns):
        return _with_last_turn(template, [(_ROLES[role], _literal(text)) for role, text in turns], examples, api)
    if any(len(turns_in(heard.before)) > 1 for heard in examples):
        return _conversation(systems, api)
    return _with_system(template, examples, api)


def _with_last_turn(
    template: Template | None, blocks: list[tuple[str, str]], examples: Sequence[Heard], api: str
) -> Wording:
    last = _Pattern.of(template.head if template else (), template.tail if template else (), "text", examples, _text)
    before = examples[0].before

    def values(heard: Heard) -> dict[str, Any] | None:
        return last.values(heard) if heard.before == before else None

    return Wording(
        blocks=(*blocks, ("user", last.template)), names=last.names, input=last.input, api=api, values=values
    )


def _with_system(template: Template | None, examples: Sequence[Heard], api: str) -> Wording:
    """The one turn before differs from call to call: its own slots are variables too."""
    before = template.before[2:] if template and len(template.before) > 2 else ()
    tail = common_tail([cut(_system(heard)).words for heard in examples], len(before)) if len(examples) > RUN else ()
    system = _Pattern.of(before, tail if len(tail) >= RUN else (), "context", examples, _system, prefix="context_")
    last = _Pattern.of(template.head if template else (), template.tail if template else (), "text", examples, _text)

    def values(heard: Heard) -> dict[str, Any] | None:
        if len(turns_in(heard.before)) != 1:
            return None
        first, second = system.values(heard), last.values(heard)
        return None if first is None or second is None else {**first, **second}

    names = tuple(dict.fromkeys((*system.names, *last.names)))
    blocks = (("system", system.template), ("user", last.template))
    return Wording(blocks=blocks, names=names, input=last.input, api=api, values=values)


def _conversation(systems: Sequence[list[tuple[str, str]]], api: str) -> Wording:
    """Turns before differ: the whole conversation is what is asked about, a system text that all share aside."""
    first = {tuple(turns) for turns in systems}
    shared = len(first) == 1 and systems[0] != [] and systems[0][0][0] in ("system", "developer")

    def values(heard: Heard) -> dict[str, Any] | None:
        turns = turns_in(heard.before)
        if shared and turns[:1] != systems[0]:
            return None
        turns = turns[1 if shared else 0 :]
        told = [{"role": _ROLES.get(role, ""), "content": text} for role, text in (*turns, ("user", heard.text))]
        sound = all(turn["role"] and turn["content"].strip() for turn in told)
        return {"messages": told} if sound else None

    blocks = [("system", _literal(systems[0][0][1]))] if shared else []
    return Wording(blocks=(*blocks, ("messages", "")), names=("messages",), input="messages", api=api, values=values)


def _text(heard: Heard) -> str:
    return heard.text


def _system(heard: Heard) -> str:
    turns = turns_in(heard.before)
    return turns[0][1] if turns else ""


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """One turn as a template: fixed words at its beginning and end, variables in between."""

    template: str
    names: tuple[str, ...]
    input: str
    head: Words
    tail: Words
    free: Mapping[int, str]
    """Names of the words in ``head`` that differ, by their place."""
    said: Mapping[int, str]
    """The other words of ``head``, and those of ``tail`` counted from the end, as they are written."""
    middle: str | None
    turn: Callable[[Heard], str]

    @classmethod
    def of(
        cls,
        head: Words,
        tail: Words,
        name: str,
        examples: Sequence[Heard],
        turn: Callable[[Heard], str],
        *,
        prefix: str = "",
    ) -> _Pattern:
        """The pattern that turns of the examples have; the whole turn is the variable where they share nothing."""
        texts = [turn(heard) for heard in examples]
        cuts = [cut(text) for text in texts]
        if any(one.words[: len(head)] != head or (tail and one.words[-len(tail) :] != tail) for one in cuts):
            head = tail = ()
        told = [[text[slice(*span)] for span in one.spans[: len(head)]] for text, one in zip(texts, cuts, strict=True)]
        free: dict[int, str] = {}
        for at, word in enumerate(head):
            if len({words[at] for words in told}) > 1:
                free[at] = f"{prefix}{_SLOTS[word]}_{len(free) + 1}"
        tail = _literal_tail(texts, cuts, tail)
        middle = any(len(one.words) > len(head) + len(tail) for one in cuts)
        if not middle and not free:  # the very same turn each time: there is nothing but it to ask about
            head, tail, middle = (), (), True
        template = _written(texts[0], cuts[0].spans, len(head), len(tail), free, name if middle else None)
        if _BLOCK.search(template):  # a line of it would begin a block of the prompt file
            head, tail, free, middle, template = (), (), {}, True, f"{{{name}}}"
        wording = _wording(texts[0], cuts[0], len(head), len(tail))
        names = (*((name,) if middle else ()), *free.values())
        return cls(
            template=template,
            names=names,
            input=names[0],
            head=head,
            tail=tail,
            free=free,
            said={at: word for at, word in wording.items() if at not in free},
            middle=name if middle else None,
            turn=turn,
        )

    def values(self, heard: Heard) -> dict[str, Any] | None:
        """The variables of a call."""
        text = self.turn(heard)
        found = cut(text)
        head, tail = len(self.head), len(self.tail)
        if len(found.words) < head + tail or found.words[:head] != self.head:
            return None
        if any(text[slice(*found.spans[at])] != word for at, word in self.said.items()):
            return None
        values = {name: text[slice(*found.spans[at])] for at, name in self.free.items()}
        if self.middle is not None:
            values = {self.middle: _between(text, found.spans, head, tail), **values}
        return values if all(value.strip() for value in values.values()) else None


def _literal_tail(texts: Sequence[str], cuts: Sequence[Cut], tail: Words) -> Words:
    """As much of the end as is written the same in all examples: a number in it may be one or a variable."""
    for at in range(1, len(tail) + 1):
        if len({text[slice(*one.spans[-at])] for text, one in zip(texts, cuts, strict=True)}) > 1:
            return tail[len(tail) - at + 1 :]
    return tail


def _wording(text: str, found: Cut, head: int, tail: int) -> dict[int, str]:
    """How the words of head and tail are written, by their place from the beginning or from the end."""
    return {at: text[slice(*found.spans[at])] for at in (*range(head), *range(-tail, 0))}


def _between(text: str, spans: Sequence[tuple[int, int]], head: int, tail: int) -> str:
    begin = spans[head - 1][1] if head else 0
    end = spans[-tail][0] if tail else len(text)
    return text[begin:end].strip()


def _written(
    text: str, spans: Sequence[tuple[int, int]], head: int, tail: int, free: Mapping[int, str], name: str | None
) -> str:
    """The template of a turn, spaces as one of the examples has them."""
    parts, end = [], 0
    for at in range(head):
        parts.append(_literal(text[end : spans[at][0]]))
        parts.append(f"{{{free[at]}}}" if at in free else _literal(text[slice(*spans[at])]))
        end = spans[at][1]
    if name is None:
        return "".join(parts) + _literal(text[end:])
    last = spans[-tail][0] if tail else len(text)
    inside = text[end:last]
    before, after = inside[: len(inside) - len(inside.lstrip())], inside[len(inside.rstrip()) :]
    if not inside.strip():
        before, after = " ", ""
    return "".join(parts) + (before if head else "") + f"{{{name}}}" + (after + _literal(text[last:]) if tail else "")


# --- The files -------------------------------------------------------------------------------------------------------


def name_of(one: Ranked) -> str:
    """What a task of a cluster is called."""
    versions = one.tally.cluster.templates[:1]
    fixed = ((*version.before[2:], *version.head, *version.tail) for version in versions)
    texts = [" ".join(word for word in wording if word.isalpha()) for wording in fixed]
    said = telling_words(texts or [heard.text for heard in one.tally.examples], 3) if one.tally.examples else ()
    told = re.sub(r"[^a-z0-9]+", "-", "-".join(said).lower()).strip("-")[:40].strip("-")
    return f"traffic-{one.number}-{told}".rstrip("-")


def write_task(
    one: Ranked, calls: Iterator[Heard], given: Given, folder: Path, *, examples: Sequence[Heard], clock: Clock
) -> Written:
    """Write a cluster's task below a folder. Raises UsageError where one of that name is there already."""
    name = name_of(one)
    place = folder / name
    if place.exists():
        raise UsageError(f"{place} is there already; nothing is written over, so remove it or name another folder")
    hidden = folder / f".{name}.{os.getpid()}"
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir(parents=True)
        wording = wording_of(one.tally.cluster, examples)
        wording = wording if given.completes else replace(wording, api="chat")
        (hidden / "prompt.md").write_text(_prompt(name, wording), "utf-8")
        seeds, left_out = _write_seeds(hidden / "seeds.jsonl", calls, wording)
        kind, remarks = _write_spec(hidden / "task.yaml", one, wording, given, examples, seeds, clock)
        hidden.rename(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written ({error.strerror}); name another folder") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    told = (*remarks, *([given.remark] if given.remark else []))
    return Written(cluster=one.number, folder=place, kind=kind, seeds=seeds, left_out=left_out, remarks=told)


def _prompt(name: str, wording: Wording) -> str:
    front = {
        "name": name,
        "version": 1,
        "description": "Mined from recorded calls.",
        "licence": "NOASSERTION",
        "api": wording.api,
        "inputs": list(wording.names),
    }
    if wording.api == "chat":
        front.pop("api")
    blocks = wording.blocks if wording.api == "chat" else wording.blocks[-1:]
    body = "".join(f"{role}:\n{text}\n" if text else f"{role}:\n" for role, text in blocks)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{body}"


def _write_seeds(path: Path, calls: Iterator[Heard], wording: Wording) -> tuple[int, int]:
    """Every different input once, under the name of the first call that had it."""
    from corpusgen.curation.pii import secret_in

    seen, seeds, left_out = set[int](), 0, 0
    with path.open("xb") as file:
        for heard in calls:
            values = wording.values(heard)
            written = b"" if values is None else orjson.dumps(values)
            mark = mark_of(written.decode("utf-8", "replace"))
            if values is None or mark in seen or secret_in(written.decode("utf-8", "replace")) is not None:
                left_out += 1
                continue
            seen.add(mark)
            file.write(orjson.dumps({"id": _id(heard, mark), **values}) + b"\n")
            seeds += 1
    if not seeds:
        raise UsageError("no call of this cluster has an input of its own; there is nothing to ask about")
    return seeds, left_out


def _id(heard: Heard, mark: int) -> str:
    """The record's id; of a log what the values make of themselves, for lines have no lasting name."""
    return heard.place[:32] if heard.run_id else f"log-{mark:016x}"


def _write_spec(
    path: Path,
    one: Ranked,
    wording: Wording,
    given: Given,
    examples: Sequence[Heard],
    seeds: int,
    clock: Clock,
) -> tuple[str, tuple[str, ...]]:
    """The spec: with labels where the cluster has some and its teacher can tell them apart, else with free answers."""
    why = _why_no_labels(one)
    if one.form == "label" and why is None:
        text = _spec(path.parent, one, wording, given, examples, seeds, labels=True)
        path.write_text(text, "utf-8")
        why = _fault(path, clock, asked=given.intended_use is None)
        if why is None:
            return "label", ()
    path.write_text(_spec(path.parent, one, wording, given, examples, seeds, labels=False), "utf-8")
    return "response", () if why is None else (f"written with free answers, not labels: {why}",)


def _why_no_labels(one: Ranked) -> str | None:
    firsts = [label.split()[0].casefold() for label in one.labels]
    if one.form == "label" and len(set(firsts)) < len(firsts):
        return "labels are told apart by their first words, and two of these begin alike"
    return None


def _fault(path: Path, clock: Clock, *, asked: bool) -> str | None:
    """Why a spec with labels would not do; not looked into where it has a question to be answered first."""
    if asked:
        return None
    try:
        connect(load_task(path), clock, sending=False)
    except CorpusgenError as error:
        return str(error).replace(str(path.parent) + os.sep, "").splitlines()[0]
    return None


def _spec(
    folder: Path,
    one: Ranked,
    wording: Wording,
    given: Given,
    examples: Sequence[Heard],
    seeds: int,
    *,
    labels: bool,
) -> str:
    name = folder.name.lstrip(".").rpartition(".")[0]
    first = {
        "name": name,
        "version": 1,
        "description": f"Cluster {one.number} of recorded traffic: {one.tally.calls:,} calls, as {one.form}.",
        "prompt": "prompt.md",
        "input": wording.input,
        "kind": "label" if labels else "response",
    }
    if labels:
        first["labels"] = {"names": [_spelt(one, label) for label in one.labels]}
    rest: dict[str, Json] = {
        "sources": list(given.sources),
        "seeds": {"train": {"path": "seeds.jsonl", "source": given.source}},
        "teachers": [{**given.teacher, "parameters": _parameters(examples, labels=labels)}],
        **given.more,
    }
    example = examples[0]
    if not labels and isinstance(example.schema, dict):
        rest["answer_schema"] = example.schema
    if not labels and isinstance(example.functions, list):
        rest["tools"] = example.functions
    order = {"limit": min(seeds, 1_500)} if labels else {"limit": min(seeds, 1_500), "order": "file"}
    rest["asking"] = order
    use = _QUESTION if given.intended_use is None else _yaml({"intended_use": dict(given.intended_use)})
    return f"{_yaml(first)}\n{use}\n{_yaml(rest)}"


def _spelt(one: Ranked, label: str) -> str:
    told = one.tally.spelt.get(label, label)
    return told if normal(told) == label else label


def _parameters(examples: Sequence[Heard], *, labels: bool) -> dict[str, Json]:
    told = {name: value for name, value in examples[-1].parameters.items() if name not in _OWN_LOGPROBS}
    most = next((told[name] for name in _NAMES_OF_MOST if type(told.get(name)) is int and told[name] > 0), None)
    for name in _NAMES_OF_MOST:
        told.pop(name, None)
    known = most or max(DEFAULT_MAX_TOKENS, 2 * max(heard.output_tokens for heard in examples))
    if not labels:
        return {"max_tokens": known, **told}
    told.pop("temperature", None)
    asked = examples[-1].parameters.get("top_logprobs")
    return {"max_tokens": 1, "temperature": 0, "top_logprobs": max(TOP_LOGPROBS, asked or 0), **told}


_NAMES_OF_MOST: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _yaml(value: Mapping[str, Json]) -> str:
    return yaml.safe_dump(orjson.loads(orjson.dumps(value)), sort_keys=False, allow_unicode=True, width=110)
