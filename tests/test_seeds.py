from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.errors import SeedError
from corpusgen.prompting.seeds import Seed, read_seeds
from corpusgen.spec import Seeds

# What all three kinds of file can hold: no control characters (a reader may fold line ends) and not only spaces.
words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
ROWS = [{"id": "1", "text": 'a cat, "Tom"', "label": "animal"}, {"id": "2", "text": "Öl & 猫", "label": "plant"}]


def seeds(path: Path, **options: object) -> list[Seed]:
    spec = Seeds.model_validate({"path": path.name, "source": "ours", **options})
    return list(read_seeds(path, spec, ("text",)))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def complaint(path: Path, **options: object) -> str:
    with pytest.raises(SeedError) as raised:
        seeds(path, **options)
    return str(raised.value)


@settings(max_examples=25, deadline=None)
@given(st.lists(words, min_size=1, max_size=6))
def test_parquet_csv_and_json_lines_say_the_same(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("seeds")
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    parquet, table, lines = (seeds(write(folder / f"s.{kind}", rows)) for kind in ("parquet", "csv", "jsonl"))
    assert parquet == table == lines
    assert [seed.values["text"] for seed in parquet] == texts


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
class TestEveryKind:
    def test_ids_gold_and_source_come_along(self, tmp_path: Path, kind: str) -> None:
        first, second = seeds(write(tmp_path / f"s.{kind}", ROWS), gold="label")
        assert (first.item_id, first.gold, first.source, first.row) == ("1", "animal", "ours", 1)
        assert second.values == {"text": "Öl & 猫"}

    def test_a_limit_reads_the_first_rows(self, tmp_path: Path, kind: str) -> None:
        assert [seed.item_id for seed in seeds(write(tmp_path / f"s.{kind}", ROWS), limit=1)] == ["1"]

    def test_a_missing_column_is_named_with_those_there_are(self, tmp_path: Path, kind: str) -> None:
        path = write(tmp_path / f"s.{kind}", ROWS)
        assert "gold: no such column; the file has: id, text, label" in complaint(path, gold="gold")

    def test_an_empty_cell_is_named_with_its_row(self, tmp_path: Path, kind: str) -> None:
        path = write(tmp_path / f"s.{kind}", [ROWS[0], {**ROWS[1], "text": " "}])
        assert "text: row 2 is empty here; fill it in or remove the row" in complaint(path)

    def test_an_id_twice_is_named_with_both_rows(self, tmp_path: Path, kind: str) -> None:
        path = write(tmp_path / f"s.{kind}", [ROWS[0], {**ROWS[1], "id": "1"}])
        assert "id: '1' stands in rows 1 and 2; ids name one item" in complaint(path)

    def test_garbage_is_named(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"s.{kind}"
        path.write_bytes(b"\xff\xfe\x00garbage\x00")
        assert complaint(path).startswith(str(path))

    def test_a_file_without_rows_is_named(self, tmp_path: Path, kind: str) -> None:
        path = write(tmp_path / f"s.{kind}", ROWS)
        if kind == "parquet":
            pq.write_table(pq.read_table(path).slice(0, 0), path)
        else:
            path.write_text("id,text\n" if kind == "csv" else "\n\n")
        assert "holds no rows" in complaint(path)


def test_numbers_are_read_as_written_and_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"id": 7, "text": "x"}\n')
    assert seeds(path)[0].item_id == "7"
    for value in ("1.5", "true", "[1]", '{"a": 1}'):
        path.write_text(f'{{"id": "1", "text": {value}}}\n')
        assert "only text and whole numbers are read" in complaint(path)


def test_a_bad_line_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"id": "1", "text": "x"}\n\n{"id": "2",\n')
    assert complaint(path).startswith(f"{path}:3: is not JSON")
    path.write_text('{"id": "1", "text": "x"}\n\n{"id": "2", "text": ""}\n')
    assert complaint(path).startswith(f"{path}:3: text: row 2 is empty")
    path.write_text("[1]\n")
    assert complaint(path).startswith(f"{path}:1: is not a JSON object")


def test_a_comma_too_many_does_not_cut_a_text_short(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,text\n1,first\n2,a cat, and a dog\n")
    assert complaint(path) == f"{path}:3: row 2 has more cells than the header; put texts that hold commas in quotes"


def test_windows_files_are_read(tmp_path: Path) -> None:
    table, lines = tmp_path / "s.csv", tmp_path / "s.JSONL"
    table.write_bytes(b"\xef\xbb\xbfid,text\r\n1,x\r\n")
    lines.write_bytes(b'\xef\xbb\xbf{"id": "1", "text": "x"}\r\n')
    assert [seed.values for seed in seeds(table) + seeds(lines)] == [{"text": "x"}] * 2


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    assert "unknown kind of file '.xlsx'; use .parquet, .csv, .jsonl" in complaint(tmp_path / "s.xlsx")
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read: Is a directory" in complaint(tmp_path / "folder.csv")
    assert "cannot be read: No such file" in complaint(tmp_path / "missing.parquet")


def test_an_image_among_the_texts_is_named_as_what_it_is(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    for value in (turns, [picture], picture):
        path = tmp_path / "seeds.jsonl"
        path.write_text(json.dumps({"id": "1", "text": value}))
        with pytest.raises(SeedError, match="row 1 holds image_url; teachers are asked in text"):
            seeds(path)
