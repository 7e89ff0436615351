"""A thousand changes of a single byte in shards, manifests and exported events: every one of them is found."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_samples import distilled

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.stages.committing import committed_shards
from corpusgen.stages.lineage.ledger_checks import events_checked, export_events
from corpusgen.stages.sealing import seal_file, sealed_dataset
from corpusgen.stages.verifying import manifest_problem, seal_problem, verify
from corpusgen.store.shards import verify_shard

CHANGES = 200
"""In each of the five kinds of files."""

Look = Callable[[], object]
"""True where something is wrong; the part of verify that looks at one file."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with Corpus.open(distilled(tmp_path_factory.mktemp("finished"))) as opened:
        yield opened


def shards(corpus: Corpus) -> list[tuple[Path, Look]]:
    def look(entry: int) -> Look:
        return lambda: verify_shard(corpus.folder / entries[entry].path, entries[entry])

    entries = committed_shards(corpus)
    return [(corpus.folder / entry.path, look(at)) for at, entry in enumerate(entries)]


def dataset(corpus: Corpus) -> list[tuple[Path, Look]]:
    def look() -> object:
        try:
            return not sealed_dataset(corpus, "kinds-1")
        except CorpusDamaged:
            return True

    return [(path, look) for path in sealed_dataset(corpus, "kinds-1").files]


def manifest(corpus: Corpus) -> list[tuple[Path, Look]]:
    return [(corpus.folder / "MANIFEST.json", lambda: manifest_problem(corpus))]


def sealed_manifest(corpus: Corpus) -> list[tuple[Path, Look]]:
    sealed = sealed_dataset(corpus, "kinds-1")
    return [(seal_file(corpus, "kinds-1"), lambda: seal_problem(corpus, sealed))]


def events(corpus: Corpus) -> list[tuple[Path, Look]]:
    file = corpus.folder.with_name("events.jsonl")
    export_events(corpus, file)
    return [(file, lambda: events_checked(file).findings)]


KINDS = (shards, dataset, manifest, sealed_manifest, events)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_changed_byte_is_found(corpus: Corpus, kind: Callable[[Corpus], list[tuple[Path, Look]]]) -> None:
    choose, files, missed = random.Random(kind.__name__), kind(corpus), list[str]()
    for number in range(CHANGES):
        file, look = files[number % len(files)]
        content = file.read_bytes()
        at, other = choose.randrange(len(content)), choose.randrange(1, 256)
        file.write_bytes(content[:at] + bytes([content[at] ^ other]) + content[at + 1 :])
        missed += [] if look() else [f"{file.name}: byte {at} of {len(content)} changed by {other}"]
        file.write_bytes(content)
    assert missed == []
    assert not any(look() for _, look in files)


def test_it_is_a_thousand() -> None:
    assert CHANGES * len(KINDS) == 1_000


@pytest.mark.parametrize("kind", [shards, dataset, manifest, sealed_manifest], ids=lambda kind: str(kind.__name__))
def test_verify_looks_at_each_of_these_files(
    corpus: Corpus, tmp_path: Path, kind: Callable[[Corpus], list[tuple[Path, Look]]]
) -> None:
    """So that what is found above is found by the command too."""
    shutil.copytree(corpus.folder, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as spoiled:
        assert verify(spoiled) == []
        for file, _ in kind(spoiled):
            content = file.read_bytes()
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
            assert verify(spoiled) != []
            file.write_bytes(content)
