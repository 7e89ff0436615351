from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[1] / "data" / "word-domain"
SIZES = {"gold": 1500, "validation": 300, "pool": 20_000, "fewshot": 18}

# Two glosses of a kind we want, one of another lexicographer file, one quoted, one too short, and a pair that says
# the same in other punctuation.
DATA_NOUN = """\
  1 This software and database is being provided to you, the LICENSEE, by
00000001 05 n 01 fox 0 000 | a small red animal of the northern woods; "a fox ran"
00000002 20 n 01 fern 0 000 | a  green plant that grows in the shade
00000003 03 n 01 thing 0 000 | a thing of a kind that nobody asked for
00000004 18 n 01 liar 0 000 | a person who says "yes" when the answer is no
00000005 13 n 01 soup 0 000 | a thin food
00000006 15 n 01 town 0 000 | a large place, where many people live
00000007 08 n 01 place 0 000 | a large place where many people live; (anatomy)
"""


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("word_domain_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {name: pq.read_table(FOLDER / f"{name}.parquet").to_pylist() for name in SIZES}


def test_the_files_have_the_promised_sizes_and_columns(rows: dict[str, list[dict[str, str]]]) -> None:
    assert {name: len(found) for name, found in rows.items()} == SIZES
    assert {name for name, found in rows.items() if set(found[0]) == {"id", "definition"}} == {"pool"}


def test_no_definition_is_in_two_files(rows: dict[str, list[dict[str, str]]], build: ModuleType) -> None:
    every = [row for found in rows.values() for row in found]
    assert len({row["id"] for row in every}) == len(every)
    assert len({build.normalised(row["definition"]) for row in every}) == len(every)


def test_definitions_are_as_long_as_promised_and_unquoted(rows: dict[str, list[dict[str, str]]]) -> None:
    texts = [row["definition"] for found in rows.values() for row in found]
    assert all(6 <= len(text.split()) <= 24 and '"' not in text and ";" not in text for text in texts)


def test_examples_are_balanced_and_gold_is_as_uneven_as_the_dictionary(rows: dict[str, list[dict[str, str]]]) -> None:
    assert set(Counter(row["label"] for row in rows["fewshot"]).values()) == {3}
    shares = Counter(row["label"] for row in rows["gold"])
    assert 0.29 < shares["person"] / 1500 < 0.36
    assert 0.05 < shares["body"] / 1500 < 0.09


def test_the_readme_tells_the_digests_of_the_files() -> None:
    told = (FOLDER / "README.md").read_text("utf-8")
    for path in FOLDER.glob("*.parquet"):
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in told


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 3_000_000


def test_the_licence_and_its_notice_are_there() -> None:
    text = (FOLDER / "LICENSE").read_text("utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in text
    assert "MERCHANT-" in text


def test_only_usable_glosses_are_taken(build: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "data.noun"
    source.write_text(DATA_NOUN)
    assert [(gloss.id, gloss.definition, gloss.label) for gloss in build.read_glosses(source)] == [
        ("wn30-n-00000001", "a small red animal of the northern woods", "animal"),
        ("wn30-n-00000002", "a green plant that grows in the shade", "plant"),
    ]


def test_building_twice_gives_the_same_bytes(build: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "data.noun"
    source.write_text("".join(_line(number) for number in range(40)))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sizes = {"gold": 5, "validation": 5, "pool": 20}
        build.build(source, tmp_path / name, sizes=sizes, examples=(), rest=tmp_path / name / "rest.parquet")
        source.write_text("".join(_line(number) for number in reversed(range(40))))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def _line(number: int) -> str:
    return f"{number:08} 05 n 01 beast 0 000 | a beast with number {number} on its back\n"
