"""From seeds and a prompt file to the requests a teacher will see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from corpusgen.prompting.prompt_file import ANSWERS, PromptFile, load_prompt
from corpusgen.prompting.seeds import Seed, read_golds, read_seeds
from corpusgen.records import Message, Request, Split
from corpusgen.spec import Located, Seeds

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "gold")


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something to ask about: a seed with its place in the task."""

    item_id: str
    split: Split
    input: str
    messages: tuple[Message, ...]
    source_ids: tuple[str, ...]
    gold: str | None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One item with the request that will be sent for it; ``ordinal`` is its place in the run."""

    item: Item
    request: Request
    ordinal: int

    @cached_property
    def record_id(self) -> str:
        """Name of the record the answer becomes: sha256 of the split and the request key, in hex."""
        return hashlib.sha256(self.item.split.encode() + self.request.key).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """A task's prompt file with its worked examples, ready to make items of seeds."""

    located: Located
    file: PromptFile
    examples: str
    example_sources: tuple[str, ...]

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
        return read_seeds(_seed_file(self.located, seeds, "seeds", split), seeds, self.file.inputs, self.file.room)

    def _golds(self, split: Split) -> Iterator[tuple[str, str | None]]:
        seeds: Seeds | None = getattr(self.located.spec.seeds, split)
        if seeds is None:
            return iter(())
        return read_golds(_seed_file(self.located, seeds, "seeds", split), seeds, self.file.inputs, self.file.room)

    def item(self, seed: Seed, split: Split) -> Item:
        """One seed as something to ask about."""
        return Item(
            item_id=seed.item_id,
            split=split,
            input=seed.values[self.located.spec.input],
            messages=self.file.messages(seed.values, self.examples, seed.turns),
            # The worked examples are in the prompt, so the answer descends from them as well.
            source_ids=(f"{seed.source}#{seed.item_id}", *self.example_sources),
            gold=seed.gold,
        )


Requester = Callable[[Item, int], Request]
"""Makes the request for the n-th sample of an item."""


def prompts(items: Iterator[Item], requester: Requester, *, samples: int, first_ordinal: int = 0) -> Iterator[Prompt]:
    """A prompt for every sample of every item, numbered in order."""
    ordinal = first_ordinal
    for item in items:
        for sample in range(samples):
            yield Prompt(item=item, request=requester(item, sample), ordinal=ordinal)
            ordinal += 1


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
