"""Builds the word-example files from WordNet: ``python build.py WORDNET_FOLDER OUT``.

The same input gives the same bytes (with the same pyarrow): the order is that of a hash of a fixed seed and the
synset's offset. README.md says what each file is.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SEED = "corpusgen word-example 1"
WORDS = range(4, 17)
LEAST_TAGGED = 5
SIZE = 1_000

# Ours, not WordNet's: words, meanings and sentences were written for this file.
EXAMPLES = (
    ("teapot", "a pot with a spout, for making tea", "She warmed the teapot before she poured in the boiling water."),
    ("shortcut", "a quicker way than the usual one", "We took a shortcut through the park and arrived early."),
    ("plumber", "someone who puts in and mends water pipes", "The plumber found the leak behind the kitchen wall."),
    ("drizzle", "very light rain", "A cold drizzle was falling when the game began."),
    ("blanket", "a large warm cover for a bed", "He pulled the blanket over his head and went back to sleep."),
    (
        "rumour",
        "a story that is passed on and may not be true",
        "The rumour about the new school turned out to be false.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Word:
    """A common noun in its commonest tagged sense."""

    id: str
    word: str
    definition: str
    tagged: int


def read_words(wordnet: Path) -> list[Word]:
    """One sense of every usable noun: the one that was tagged most often."""
    tags = tag_counts((wordnet / "cntlist.rev").read_text("utf-8").splitlines())
    lines = (wordnet / "data.noun").read_text("utf-8").splitlines()
    best: dict[str, Word] = {}
    for found in filter(None, (parse(line, tags) for line in lines)):
        if found.word not in best or found.tagged > best[found.word].tagged:
            best[found.word] = found
    return list(best.values())


def tag_counts(lines: Iterable[str]) -> Mapping[str, int]:
    """How often each noun sense was found in tagged text, by sense key."""
    rows = (line.split(" ") for line in lines)
    return {row[0]: int(row[2]) for row in rows if "%1:" in row[0]}


def parse(line: str, tags: Mapping[str, int]) -> Word | None:
    """The first word and the gloss of one line of ``data.noun``, or None if it is not one we want."""
    synset, found, gloss = line.partition(" | ")
    if not found or line.startswith(" "):
        return None
    offset, file, _, _, word, lex_id, *_ = synset.split(" ")
    definition = " ".join(gloss.partition(";")[0].split())
    tagged = tags.get(f"{word}%1:{file}:{int(lex_id, 16):02d}::", 0)
    plain = word.isascii() and word.isalpha() and word.islower() and len(word) > 2
    if not plain or tagged < LEAST_TAGGED or '"' in definition or len(definition.split()) not in WORDS:
        return None
    if word in {example[0] for example in EXAMPLES}:
        return None
    return Word(id=f"wn30-n-{offset}", word=word, definition=definition, tagged=tagged)


def shuffled(words: Iterable[Word]) -> list[Word]:
    """The words in an order that depends on the seed and their ids only."""
    return sorted(words, key=lambda word: hashlib.sha256(f"{SEED}/{word.id}".encode()).digest())


def without_same_meaning(words: Sequence[Word]) -> Iterator[Word]:
    """The words but for those whose definition an earlier one has."""
    seen: set[str] = set()
    for word in words:
        if word.definition.lower() not in seen:
            seen.add(word.definition.lower())
            yield word


def write(path: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """A Parquet file of text columns."""
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def build(wordnet: Path, out: Path, *, size: int = SIZE) -> int:
    """Write both files and return how many words there were to choose from."""
    found = list(without_same_meaning(shuffled(read_words(wordnet))))
    pool = found[:size]
    write(out / "pool.parquet", {name: [getattr(word, name) for word in pool] for name in ("id", "word", "definition")})
    ids = [f"example-{number}" for number in range(1, len(EXAMPLES) + 1)]
    words, definitions, sentences = (list(column) for column in zip(*EXAMPLES, strict=True))
    write(out / "fewshot.parquet", {"id": ids, "word": words, "definition": definitions, "sentence": sentences})
    return len(found)


def main() -> None:
    """Build from the command line and print counts and digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wordnet", type=Path, help="folder with data.noun and cntlist.rev")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    print(f"{build(arguments.wordnet, arguments.out)} words to choose from")
    for path in sorted(arguments.out.glob("*.parquet")):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")


if __name__ == "__main__":
    main()
