"""Seed files, worked examples and prompts of a corpus's runs, read again: what in them still holds a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.curation.occurrence import Occurrence
from corpusgen.errors import LocatedError
from corpusgen.prompting.prompt_file import PromptFile, load_prompt
from corpusgen.prompting.prompts import SPLITS
from corpusgen.prompting.seeds import Seed, read_seeds
from corpusgen.records import Json
from corpusgen.spec import Seeds
from corpusgen.stages.runs import JUDGES

EXAMPLES: Final = "examples file"
_MOST_FOLDERS: Final = 500
"""Folders beside a corpus that are looked into for the files of a spec."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """A file that a run's spec names, and what of it holds the text."""

    kind: str
    path: str
    """As the spec names it."""
    source: str
    held: frozenset[str] = frozenset()
    """Items that hold it, ``source#id``."""
    others: frozenset[str] = frozenset()
    """Worked examples that do not."""
    problem: str = ""
    """Why it was not read to its end."""

    @property
    def told(self) -> dict[str, Json] | None:
        """For the report; None where there is nothing to do about it."""
        where = {"where": f"{self.kind} {self.path}", "of": self.source}
        if self.problem:
            return where | {"why": self.problem}
        if not self.held:
            return None
        many = "1 item" if len(self.held) == 1 else f"{len(self.held)} items"
        return where | {"why": f"still holds it in {many}, not asked about again; clean it"}


def seeded(corpus: Corpus, subject: Occurrence) -> Iterator[Seeded]:
    """Every file of every run's spec, once.

    A spec is kept without the folder it lay in, so its files are looked for here, beside the corpus, in it, and in the
    folders of these; of several that hold its prompt, in those where it is the very prompt that was asked.
    """
    folders, read, lost = _folders(corpus), dict[object, Seeded](), dict[object, Seeded]()
    for run_id, spec, facts in corpus.journal.query("select run_id, spec, facts from runs"):
        fields = orjson.loads(spec)
        if JUDGES in run_id or not fields.get("prompt"):
            continue
        places = _prompts(folders, fields["prompt"], orjson.loads(facts).get("prompt_digest"))
        for kind, seeds in _files_of(fields):
            found = {(folder / seeds.path).resolve(): prompt for folder, prompt in places}
            for path, prompt in found.items():
                if path.is_file() and (path, seeds.source, prompt.inputs) not in read:
                    read[path, seeds.source, prompt.inputs] = _read(kind, path, seeds, prompt, subject)
            if not any(path.is_file() for path in found):
                problem = "was not found, so what it still holds of it can be asked again; look yourself"
                lost[kind, seeds.path, seeds.source] = Seeded(
                    kind=kind, path=seeds.path, source=seeds.source, problem=problem
                )
        for _, prompt in places:
            if subject.is_in(prompt.file.read_text("utf-8", "replace")):
                read[prompt.file] = Seeded(
                    kind="prompt", path=fields["prompt"], source=fields["name"], problem="still holds it; clean it"
                )
    yield from read.values()
    known = {(one.kind, one.path, one.source) for one in read.values()}
    yield from (one for place, one in lost.items() if place not in known)


def _folders(corpus: Corpus) -> list[Path]:
    first = [Path.cwd(), corpus.folder.resolve().parent, corpus.folder.resolve()]
    # Runs of a service name files in a folder of their own in the corpus.
    holding = [*first[:2], first[2] / "service"]
    return list(dict.fromkeys([*first, *(inner for folder in holding for inner in _inside(folder))]))


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and one.name[:1] != ".")[:_MOST_FOLDERS]
    except OSError:
        return []


def _prompts(folders: list[Path], name: str, digest: str | None) -> list[tuple[Path, PromptFile]]:
    found = []
    for folder in folders:
        if (folder / name).is_file():
            try:
                found.append((folder, load_prompt(folder / name)))
            except LocatedError:
                continue  # it says so by itself to whoever runs its spec
    return [one for one in found if one[1].digest == digest] or found


def _files_of(spec: Mapping[str, Json]) -> Iterator[tuple[str, Seeds]]:
    """Its seed files, and that of its worked examples, each with all of its rows: another spec may read more."""
    told = [("seed file", (spec.get("seeds") or {}).get(split)) for split in SPLITS]
    for kind, fields in [*told, (EXAMPLES, spec.get("examples"))]:
        if fields:
            yield kind, Seeds.model_validate({**fields, "limit": None})


def _read(kind: str, path: Path, seeds: Seeds, prompt: PromptFile, subject: Occurrence) -> Seeded:
    held, others, problem = set[str](), set[str](), ""
    try:
        for seed in read_seeds(path, seeds, prompt.inputs, prompt.room):
            if any(map(subject.is_in, _texts_of(seed))):
                held.add(f"{seed.source}#{seed.item_id}")
            elif kind == EXAMPLES:
                others.add(f"{seed.source}#{seed.item_id}")
    except LocatedError as error:
        problem = f"holds it in {len(held)} items up to where it cannot be read: {error}"
    return Seeded(
        kind=kind,
        path=seeds.path,
        source=seeds.source,
        held=frozenset(held),
        others=frozenset(others),
        problem=problem,
    )


def _texts_of(seed: Seed) -> Iterator[str]:
    yield from (seed.item_id, seed.gold or "", *seed.values.values())
    yield from (turn.content for turn in seed.turns)
