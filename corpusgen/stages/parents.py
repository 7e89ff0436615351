"""Parents: the records of a corpus that a task's seeds were made from, and what their rights mean for the task.

A record's own ``source_ids`` are its seed's and those of worked examples; its parents' sources are found by following
``parent_ids``, so nothing stands twice and nothing can fall out of step. Their licences bind what is made from them all
the same, so they are judged with the task's own sources, before anything is spent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import Problem, SeedError
from corpusgen.marks import Marks
from corpusgen.prompting.prompts import SPLITS
from corpusgen.prompting.seeds import Seed, read_seeds
from corpusgen.provenance.decisions import SourceUse
from corpusgen.spec import Seeds, Source
from corpusgen.stages.task import Task
from corpusgen.store.answers import Card, known_records

AT_ONCE: Final = 400
_BLOCK: Final = 1 << 16
_RECORD: Final = re.compile("[0-9a-f]{64}")
_HEX: Final = bytes(ord("x" if chr(at) in "0123456789abcdefABCDEF" else " ") for at in range(256))
_ESCAPED: Final = re.compile(rb"\\u00[3-6]")
"""A letter of an id, written as JSON may write it too."""
SHOWN: Final = 20
"""Wrong rows that are told one by one."""


def check_parents(corpus: Corpus, task: Task) -> None:
    """Raise SeedError with file and row for each parent that a seed names and this corpus has no record of.

    And for each seed whose own id is that of a record, while it does not name the record as its parent.
    """
    problems = list(islice(chain(_lost(corpus, task), _unnamed(corpus, task)), SHOWN))
    if problems:
        raise SeedError(*problems)


def names_parents(task: Task) -> bool:
    """Whether seeds of a task name the records they were made from."""
    return any(True for _ in _seed_files(task))


def inherited_sources(corpus: Corpus | None, task: Task) -> tuple[SourceUse, ...]:
    """The sources that a task's seeds descend from by way of their parents, each once; none where no seed has any."""
    files = tuple(_seed_files(task))
    if corpus is None or not files:
        return ()
    (counts,) = corpus.journal.query("select (select count(*) from runs), (select count(*) from erased)")
    states = tuple(_state(path) for path, _ in files)
    return _inherited(_At(path=corpus.journal.path, name=task.spec.name, corpus=corpus, task=task), states, counts)


@dataclass(frozen=True, kw_only=True)
class _At:
    """A task in a corpus, alike for all who open either."""

    path: Path
    name: str
    corpus: Corpus = field(compare=False)
    task: Task = field(compare=False)


@lru_cache(maxsize=4)
def _inherited(at: _At, states: tuple[tuple[Path, int, int], ...], counts: tuple[int, int]) -> tuple[SourceUse, ...]:
    """Asked of every decision of a run; what it depends on are the seed files and what the corpus holds."""
    return descent(at.corpus, named_parents(at.corpus, at.task)).uses


def _state(path: Path) -> tuple[Path, int, int]:
    found = path.stat() if path.exists() else None
    return path, found.st_mtime_ns if found else 0, found.st_size if found else 0


def named_parents(corpus: Corpus, task: Task) -> Iterator[str]:
    """The parents that a task's seeds name; of a task whose files are gone, those of the records it made."""
    if all(path.exists() for path, _ in _seed_files(task)):
        yield from (parent for _, _, seed in _seeds(task) for parent in seed.parents)
        return
    rows = corpus.journal.reader.execute(
        "select value from records r, json_each(r.item, '$.parent_ids') where dataset = ?", (task.spec.name,)
    )
    yield from (str(value) for (value,) in rows)


def _seed_files(task: Task) -> Iterator[tuple[Path, Seeds]]:
    """The seed files of a task that name parents."""
    return ((path, seeds) for path, seeds in _files(task) if seeds.parent is not None)


def _files(task: Task) -> Iterator[tuple[Path, Seeds]]:
    """The seed files of a task."""
    spec = task.spec
    for seeds in (*(getattr(spec.seeds, split) for split in SPLITS), spec.examples):
        if seeds is not None:
            yield task.located.resolve(seeds.path), seeds


def _seeds(task: Task) -> Iterator[tuple[Path, Seeds, Seed]]:
    for path, seeds in _seed_files(task):
        yield from ((path, seeds, seed) for seed in read_seeds(path, seeds, ()))


def _lost(corpus: Corpus, task: Task) -> Iterator[Problem]:
    rows = _seeds(task)
    while some := list(islice(rows, AT_ONCE)):
        wanted = {parent for _, _, seed in some for parent in seed.parents}
        named = {seed.item_id.lower() for _, _, seed in some if _called_as_record(seed)}
        known = known_records(corpus.journal.reader, wanted | named)
        for path, seeds, seed in some:
            for parent in seed.parents:
                if parent not in known:
                    told = f"row {seed.row} names the parent {parent}, which is no record of this corpus (any more)"
                    yield _problem(path, seeds, seed, f"{told}; name its --corpus, or mend the row")
            if seed.item_id.lower() in known - set(seed.parents):
                yield _problem(path, seeds, seed, f"{_unnamed_record(seed)}; list it")


def _unnamed(corpus: Corpus, task: Task) -> Iterator[Problem]:
    """Seeds that are called as records of the corpus are, in files that do not tell what was made from what."""
    for path, seeds in _files(task):
        if seeds.parent is not None or not _may_name_records(path):
            continue
        rows = filter(_called_as_record, read_seeds(path, seeds, ()))
        while some := list(islice(rows, AT_ONCE)):
            known = known_records(corpus.journal.reader, {seed.item_id.lower() for seed in some})
            for seed in some:
                if seed.item_id.lower() in known:
                    mend = f"name the column under parent (parent: {seeds.id})"
                    yield _problem(path, seeds, seed, f"{_unnamed_record(seed)}; {mend}")


def _problem(path: Path, seeds: Seeds, seed: Seed, message: str) -> Problem:
    return Problem(file=path, line=seed.line, field=seeds.parent or seeds.id, message=message)


def _called_as_record(seed: Seed) -> bool:
    return len(seed.item_id) == 64 and _RECORD.fullmatch(seed.item_id.lower()) is not None


def _unnamed_record(seed: Seed) -> str:
    why = "and does not name it as its parent, so its licence and its terms would be left behind"
    return f"row {seed.row} has the id of a record of this corpus, {seed.item_id}, {why}"


def _may_name_records(path: Path) -> bool:
    """Whether ids of records may stand in a file; most have none, which is told at a glance."""
    if path.suffix.lower() not in (".jsonl", ".csv"):
        return True
    try:
        with path.open("rb") as file:
            before = b""
            while some := file.read(_BLOCK):
                block = before + some
                if b"x" * 64 in block.translate(_HEX) or _ESCAPED.search(block):
                    return True
                before = some[-64:]
    except OSError:
        return True  # the reader says what is wrong with it
    return False


# --- Descent ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Who wrote some records and everything they were made from, and the sources all of it came from."""

    writers: Mapping[tuple[Card, str], int]
    """Records by whoever wrote them, and by what the answers were used as."""
    sources: tuple[Source, ...]
    uses: tuple[SourceUse, ...]
    """The sources as the terms see them, each with the terms of those who wrote on the way from it."""


def descent(corpus: Corpus, record_ids: Iterable[str]) -> Descent:
    """The descent of these records, themselves among it: the closure over their parents."""
    runs: dict[str, _Told] = {}
    writers: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], set[str]] = {}  # by run and source: the cards of those who wrote
    for one in _ancestry(corpus, record_ids):
        if one.run_id not in runs:
            runs[one.run_id] = _told_by_run(corpus, one.run_id)
        writers[one.card, runs[one.run_id].used_as] += 1
        for name in one.sources:
            found.setdefault((one.run_id, name), set()).add(one.card)
    places = [(runs[run_id].sources.get(name), cards) for (run_id, name), cards in sorted(found.items())]
    named = [(source, cards) for source, cards in places if source is not None]
    return Descent(
        writers={(Card.from_json(card), used): count for (card, used), count in sorted(writers.items())},
        sources=tuple(dict.fromkeys(source for source, _ in named)),
        uses=tuple(dict.fromkeys(_use(source, map(Card.from_json, sorted(cards))) for source, cards in named)),
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What a run's row says of its records."""

    used_as: str
    sources: Mapping[str, Source]


def _told_by_run(corpus: Corpus, run_id: str) -> _Told:
    ((text, facts),) = corpus.journal.query("select spec, facts from runs where run_id = ?", (run_id,))
    spec, kind = orjson.loads(text), orjson.loads(facts)["kind"]
    of_kind = {"judgement": "judge", "label": "logprobs"}
    return _Told(
        used_as=of_kind.get(kind) or spec.get("answers_as", "response"),
        sources={one["id"]: Source.model_validate_json(orjson.dumps(one)) for one in spec["sources"]},
    )


@dataclass(frozen=True, kw_only=True)
class _Ancestor:
    run_id: str
    card: str
    sources: frozenset[str]
    parents: tuple[str, ...]


def _ancestry(corpus: Corpus, record_ids: Iterable[str]) -> Iterator[_Ancestor]:
    """The records of these names and all that is above them, each once."""
    seen, rest, above = Marks(), iter(record_ids), list[str]()
    while True:
        names = list(islice(rest, AT_ONCE))
        if not names and not above:
            return
        if not names:
            rest, above = iter(above), []
        new = seen.add([int(name[:16], 16) for name in names])
        unseen = tuple(bytes.fromhex(name) for name, first in zip(names, new, strict=True) if first)
        for one in _looked_up(corpus, unseen) if unseen else ():
            above += one.parents
            yield one


def _looked_up(corpus: Corpus, names: tuple[bytes, ...]) -> Iterator[_Ancestor]:
    marks = ",".join("?" * len(names))
    rows = corpus.journal.query(
        "select r.run_id, card, r.item, r.item_id, json_extract(facts, '$.kind') from records r"  # noqa: S608 - own text
        " join answers using (request_key) join cards using (card_id) join runs on runs.run_id = r.run_id"
        f" where record_id in ({marks})",
        names,
    )
    for run_id, card, text, item_id, kind in rows:
        item = orjson.loads(text)
        yield _Ancestor(
            run_id=run_id,
            card=card,
            sources=frozenset(name.partition("#")[0] for name in item["source_ids"]),
            parents=(item_id,) if kind == "judgement" else tuple(item.get("parent_ids", ())),
        )


def _use(source: Source, writers: Iterable[Card]) -> SourceUse:
    # What nobody was asked for names its source's licence among its terms, which stands in the source already.
    terms = (name for card in writers if card.route != "imported" for name in card.terms_ids)
    return SourceUse(
        source_id=source.id,
        licence=source.licence,
        generated_by=tuple(sorted({*source.generated_by, *terms})),
        personal_data=source.personal_data,
        lawful_basis=source.lawful_basis,
        processing_regions=source.processing_regions,
    )
