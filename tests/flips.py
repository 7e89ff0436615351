"""One bit at a time is flipped in shards, manifest and exported ledgers, and verify must say so.

``python tests/flips.py [--flips N] [--seed N] [--json]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ["CORPUSGEN_CACHE"] = "off"

from flow_samples import open_corpus, write_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import generate
from corpusgen.stages import committing
from corpusgen.stages.ledger_export import check_ledger, export_ledger
from corpusgen.stages.verifying import verify
from corpusgen.store.ledger_file import side_file

ITEMS = 120
ROWS_PER_SHARD = 30


def measure(flips: int, seed: int) -> dict[str, object]:
    """How many flips there were and how many were found, by file."""
    committing.ROWS_PER_SHARD = ROWS_PER_SHARD
    tried, found, missed = Counter[str](), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        task = write_task(Path(folder), items=ITEMS)
        with open_corpus(Path(folder) / "corpus") as corpus:
            asyncio.run(_fill(task, corpus))
            if said := verify(corpus):
                raise RuntimeError(f"the corpus is not sound to begin with: {said}")
            choose = random.Random(seed)
            ledgers = [Path(folder) / f"ledger{form}" for form in (".csv", ".jsonl", ".parquet")]
            files: list[tuple[Path, Look]] = [(file, partial(verify, corpus)) for file in _kept(corpus)]
            files += [pair for ledger in ledgers for pair in _exported(corpus, ledger)]
            for at in range(flips):
                file, look = files[at % len(files)]
                place = _flip(file, choose)
                tried[_kind(file)] += 1
                noticed = bool(look())
                found[_kind(file)] += noticed
                missed += [] if noticed else [f"{file.name}: bit {place % 8} of byte {place // 8}"]
                _turn(file, place)
            if left := [str(file) for file, look in files if look()]:
                raise RuntimeError(f"something was found where nothing was flipped: {left}")
    return {"bit_flips": tried.total(), "bit_flips_found": found.total(), "by_kind": dict(tried), "missed": missed}


Look = Callable[[], Sequence[object]]


def _kept(corpus: Corpus) -> list[Path]:
    return [corpus.folder / "MANIFEST.json", *sorted((corpus.folder / "shards").rglob("*.parquet"))]


def _exported(corpus: Corpus, ledger: Path) -> list[tuple[Path, Look]]:
    """A ledger and the digest beside it, and how to look at both."""
    export_ledger(corpus, ledger)

    def look() -> Sequence[object]:
        return check_ledger(corpus, ledger).findings

    return [(ledger, look), (side_file(ledger), look)]


def _kind(file: Path) -> str:
    if file.parent.name == "words":
        return "shard"
    return "manifest" if file.name == "MANIFEST.json" else "ledger"


async def _fill(task: Path, corpus: Corpus) -> None:
    async with generate(task, corpus) as records:
        assert len([record async for record in records]) == ITEMS


def _flip(file: Path, choose: random.Random) -> int:
    place = choose.randrange(file.stat().st_size * 8)
    _turn(file, place)
    return place


def _turn(file: Path, place: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place // 8)
        (byte,) = opened.read(1)
        opened.seek(place // 8)
        opened.write(bytes([byte ^ 1 << place % 8]))


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.flips, chosen.seed)
    sys.stdout.write(json.dumps(found, indent=None if chosen.json else 1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
