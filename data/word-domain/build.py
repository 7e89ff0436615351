"""Builds the word-domain files from WordNet's ``data.noun``: ``python build.py data.noun OUT [--rest FILE]``.

The same input gives the same bytes (with the same pyarrow): what goes where is decided by a hash of a fixed seed and
the synset's offset, so neither the order of the file nor a random generator matters. README.md says what each file is.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SEED = "corpusgen word-domain 1"
LABELS = {"05": "animal", "08": "body", "13": "food", "18": "person", "15": "place", "20": "plant"}
WORDS = range(6, 25)
SIZES = {"gold": 1500, "validation": 300, "pool": 20_000}

# Chosen by accuracy on the rest, the glosses that are in no other file; README.md says how.
EXAMPLES = (
    "wn30-n-05562756",
    "wn30-n-10348526",
    "wn30-n-08786161",
    "wn30-n-08645104",
    "wn30-n-05421414",
    "wn30-n-11990920",
    "wn30-n-07926346",
    "wn30-n-05238282",
    "wn30-n-02258198",
    "wn30-n-07823004",
    "wn30-n-09086995",
    "wn30-n-12308259",
    "wn30-n-01647033",
    "wn30-n-13229018",
    "wn30-n-11104008",
    "wn30-n-10669357",
    "wn30-n-07935737",
    "wn30-n-01743936",
)


@dataclass(frozen=True, kw_only=True)
class Gloss:
    """One WordNet definition and the kind its lexicographer file gives it."""

    id: str
    definition: str
    label: str


def read_glosses(data_noun: Path) -> list[Gloss]:
    """Every usable gloss of the six kinds whose normalised text occurs once."""
    found = [gloss for line in data_noun.read_text("utf-8").splitlines() if (gloss := parse(line)) is not None]
    times = Counter(normalised(gloss.definition) for gloss in found)
    return [gloss for gloss in found if times[normalised(gloss.definition)] == 1]


def parse(line: str) -> Gloss | None:
    """The gloss on one line of ``data.noun`` up to its first semicolon, or None if it is not one we want."""
    synset, found, gloss = line.partition(" | ")
    fields = synset.split(" ")
    if not found or line.startswith(" ") or fields[1] not in LABELS:
        return None
    definition = " ".join(gloss.partition(";")[0].split())
    if '"' in definition or len(definition.split()) not in WORDS:
        return None
    return Gloss(id=f"wn30-n-{fields[0]}", definition=definition, label=LABELS[fields[1]])


def normalised(text: str) -> str:
    """Lower-case words with single spaces: equal for glosses that differ in case or punctuation only."""
    return " ".join(re.findall(r"\w+", text.lower()))


def shuffled(glosses: Iterable[Gloss]) -> list[Gloss]:
    """The glosses in an order that depends on the seed and their ids only."""
    return sorted(glosses, key=lambda gloss: hashlib.sha256(f"{SEED}/{gloss.id}".encode()).digest())


def divide(glosses: Sequence[Gloss], sizes: Mapping[str, int]) -> dict[str, list[Gloss]]:
    """Consecutive slices of the shuffled glosses by name; what is left over is ``rest``."""
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = list(glosses[start : start + size])
        start += size
    return parts | {"rest": list(glosses[start:])}


def take(rest: Sequence[Gloss], ids: Sequence[str]) -> list[Gloss]:
    """The few-shot examples, in the order of their ids."""
    by_id = {gloss.id: gloss for gloss in rest}
    return [by_id[one] for one in ids]


def write(path: Path, glosses: Sequence[Gloss], *, gold: bool) -> None:
    """A Parquet file with id and definition, and with the label where gold is asked for."""
    names = ("id", "definition", "label") if gold else ("id", "definition")
    columns = {name: pa.array([getattr(gloss, name) for gloss in glosses], pa.string()) for name in names}
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def write_labels(path: Path, glosses: Sequence[Gloss]) -> None:
    """A Parquet file with nothing but the labels, in the glosses' order."""
    table = pa.table({"label": pa.array([gloss.label for gloss in glosses], pa.string())})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def build(
    data_noun: Path,
    out: Path,
    *,
    sizes: Mapping[str, int] = SIZES,
    examples: Sequence[str] = EXAMPLES,
    rest: Path | None = None,
) -> dict[str, Counter[str]]:
    """Write the five files (and the rest, if asked) and return the class counts of each."""
    parts = divide(shuffled(read_glosses(data_noun)), sizes)
    parts["fewshot"] = take(parts["rest"], examples)
    for name in (*sizes, "fewshot"):
        write(out / f"{name}.parquet", parts[name], gold=name != "pool")
    write_labels(out / "pool-labels.parquet", parts["pool"])
    if rest is not None:
        write(rest, [gloss for gloss in parts["rest"] if gloss.id not in examples], gold=True)
    return {name: Counter(gloss.label for gloss in part) for name, part in parts.items()}


def main() -> None:
    """Build from the command line and print class counts and digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_noun", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rest", type=Path, help="where to write the glosses that are in no other file, with labels")
    arguments = parser.parse_args()
    counts = build(arguments.data_noun, arguments.out, rest=arguments.rest)
    for name, count in counts.items():
        print(f"{name:10} {count.total():6}  {dict(sorted(count.items()))}")
    for path in sorted(arguments.out.glob("*.parquet")):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")


if __name__ == "__main__":
    main()
