"""From seeds and a prompt file to the requests a teacher will see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from corpusgen.frozen import quickly_made, worked_out_once
from corpusgen.prompting.prompt_file import ANSWERS, PromptFile, load_prompt
from corpusgen.prompting.seeds import Seed, read_golds, read_seeds
from corpusgen.records import Message, Request, Split
from corpusgen.spec import Located, Seeds

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "gold")


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Item:
    """Something to ask about: a seed with its place in the task."""

    item_id: str
    split: Split
    input: str
    messages: tuple[Message, ...]
    source_ids: tuple[str, ...]
    gold: str | None
    parent_ids: tuple[str, ...] = ()
    """The records of this corpus that it was made from."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One item with the request that will be sent for it; ``ordinal`` is its place in the run.

    A request for several answers (``n``) is still one prompt; its answers take as many places from ``ordinal`` on.
    """

    item: Item
    request: Request
    ordinal: int
    known: frozenset[int] = frozenset()
    """Which of its answers are records already, counted from 0."""
    name: str | None = None
    """What its record is called, where it is one of several answers that is now asked for by itself."""

    @property
    def record_id(self) -> str:
        """Name of the record the (first) answer becomes: sha256 of split, request key and parents, in hex."""
        return self.record_ids[0]

    @worked_out_once
    def count(self) -> int:
        """How many answers are asked for in one call."""
        return int(self.request.parameters.get("n", 1))

    @worked_out_once
    def record_ids(self) -> tuple[str, ...]:
        """Names of the records of all its answers; after the first, their number is hashed too."""
        named = _named(self)
        first = hashlib.sha256(named).hexdigest() if self.name is None else self.name
        if self.count == 1:
            return (first,)
        return (first, *(hashlib.sha256(named + at.to_bytes(2)).hexdigest() for at in range(1, self.count)))


def part_of_prompt(prompt: Prompt, at: int) -> Prompt:
    """The so-manieth answer of a prompt, asked for by itself; its record keeps its name and place."""
    request = asking_for(prompt.request, 1, prompt.request.sample_index + at)
    return Prompt(item=prompt.item, request=request, ordinal=prompt.ordinal + at, name=prompt.record_ids[at])


def _named(prompt: Prompt) -> bytes:
    item = prompt.item
    named = item.split.encode() + prompt.request.key
    # The same question about text of another descent is another record, or its lineage would be the first one's.
    return named + b"".join(map(bytes.fromhex, item.parent_ids)) if item.parent_ids else named


def asking_for(request: Request, count: int, sample: int) -> Request:
    """The same question, asked for so many answers in one call, the first of which is this sample of the item."""
    parameters = {name: value for name, value in request.parameters.items() if name != "n"}
    if count > 1:
        parameters["n"] = count
    return replace(request, parameters=parameters, sample_index=sample)


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """A task's prompt file with its worked examples, ready to make items of seeds."""

    located: Located
    file: PromptFile
    examples: str
    example_sources: tuple[str, ...]
    example_parents: tuple[str, ...] = ()
    """Records that worked examples were made from."""
    treat: Callable[[Sequence[str]], Sequence[str]] | None = None
    """What the texts of a seed go through, together, when it is read, such as the masking of personal data."""
    extra_columns: tuple[str, ...] = ()
    """Columns that are read beside those the prompt shows."""

    @classmethod
    def of(cls, located: Located) -> Prompter:
        """Read and check the prompt file and the examples of a spec. Raises PromptError or SeedError."""
        spec = located.spec
        file = load_prompt(located.resolve(spec.prompt))
        if spec.input not in file.inputs:
            raise located.error(f"{spec.input!r} is not among the prompt's inputs: {', '.join(file.inputs)}", "input")
        rows = _example_rows(located, file)
        answers = [dict.fromkeys(ANSWERS, row.gold or "") for row in rows]
        return cls(
            located=located,
            file=file,
            examples=file.render_examples(
                [{**row.values, **answer} for row, answer in zip(rows, answers, strict=True)]
            ),
            example_sources=tuple(f"{row.source}#{row.item_id}" for row in rows),
            example_parents=tuple(dict.fromkeys(parent for row in rows for parent in row.parents)),
        )

    def check_seeds(self) -> None:
        """Read every seed file to its end, so that a bad row is found before anything is spent.

        Raises SpecError for a file that is not there or a gold label that is none, SeedError for a bad row.
        """
        labels = self.located.spec.labels
        for split in SPLITS:
            for item_id, gold in self._golds(split):
                if labels is not None and gold is not None and gold not in labels.names:
                    message = f"item {item_id!r} has {gold!r}, which is not among labels.names"
                    raise self.located.error(message, "seeds", split, "gold")

    def items(self, split: Split) -> Iterator[Item]:
        """The items of one split, in file order; none when the spec names no file for it."""
        return (self.item(seed, split) for seed in self.seeds(split))

    def seeds(self, split: Split) -> Iterator[Seed]:
        """What the items of one split are made from, in file order."""
        seeds: Seeds | None = getattr(self.located.spec.seeds, split)
        if seeds is None:
            return iter(())
        path, columns = _seed_file(self.located, seeds, "seeds", split), (*self.file.inputs, *self._more(split))
        found = read_seeds(path, seeds, columns, self.file.room)
        return found if self.treat is None else map(partial(_treated, self.treat, self.file.inputs), found)

    def _more(self, split: Split) -> tuple[str, ...]:
        return tuple(name for name in self.extra_columns if split == "train" and name not in self.file.inputs)

    def _golds(self, split: Split) -> Iterator[tuple[str, str | None]]:
        seeds: Seeds | None = getattr(self.located.spec.seeds, split)
        if seeds is None:
            return iter(())
        path, columns = _seed_file(self.located, seeds, "seeds", split), (*self.file.inputs, *self._more(split))
        return read_golds(path, seeds, columns, self.file.room)

    def item(self, seed: Seed, split: Split) -> Item:
        """One seed as something to ask about."""
        values = {name: seed.values[name] for name in self.file.inputs}
        return Item(
            item_id=seed.item_id,
            split=split,
            input=values[self.located.spec.input],
            messages=self.file.messages(values, self.examples, seed.turns),
            # The worked examples are in the prompt, so the answer descends from them as well.
            source_ids=(f"{seed.source}#{seed.item_id}", *self.example_sources),
            gold=seed.gold,
            parent_ids=tuple(dict.fromkeys((*seed.parents, *self.example_parents))),
        )


def _treated(treat: Callable[[Sequence[str]], Sequence[str]], inputs: Sequence[str], seed: Seed) -> Seed:
    """The seed with what the prompt shows of it treated."""
    names = [name for name in inputs if name in seed.values]
    texts = treat([*(seed.values[name] for name in names), *(turn.content for turn in seed.turns)])
    values = {**seed.values, **dict(zip(names, texts, strict=False))}
    turns = zip(seed.turns, texts[len(names) :], strict=True)
    return replace(seed, values=values, turns=tuple(replace(turn, content=text) for turn, text in turns))


Requester = Callable[[Item, int], Request]
"""Makes the request for the n-th sample of an item."""


def prompts(
    items: Iterator[Item], requester: Requester, *, samples: int, per_call: int = 1, first_ordinal: int = 0
) -> Iterator[Prompt]:
    """Prompts for every sample of every item, numbered in order; one call asks for ``per_call`` samples at most."""
    ordinal = first_ordinal
    for item in items:
        for sample in range(0, samples, per_call):
            request, count = requester(item, sample), min(per_call, samples - sample)
            yield Prompt(
                item=item, request=request if count == 1 else asking_for(request, count, sample), ordinal=ordinal
            )
            ordinal += count


def _seed_file(located: Located, seeds: Seeds, *place: str) -> Path:
    path = located.resolve(seeds.path)
    if not path.is_file():
        raise located.error(f"there is no file {str(path)!r}", *place, "path")
    return path


def _example_rows(located: Located, file: PromptFile) -> list[Seed]:
    seeds = located.spec.examples
    if seeds is None:
        if file.example is not None:
            message = (
                f"{file.file} shows worked examples; name their file, such as examples: {{path: examples.jsonl, ...}}"
            )
            raise located.error(message, "examples")
        return []
    if file.example is None:
        raise located.error(
            f"{file.file} has no example: template to show them with; add one, or remove this", "examples"
        )
    if seeds.gold is None and file.uses_answers:
        raise located.error("gold is required: the column with the answer each worked example shows", "examples")
    path = _seed_file(located, seeds, "examples")
    labels, rows = located.spec.labels, list(read_seeds(path, seeds, file.inputs, file.room))
    for row in rows:
        if labels is not None and seeds.gold is not None and row.gold not in labels.names:
            message = f"example {row.item_id!r} has {row.gold!r}, which is not among labels.names"
            raise located.error(message, "examples", "gold")
    return rows
