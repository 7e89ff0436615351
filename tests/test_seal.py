"""Sealing: complete provenance or no seal, a root that notices every change, a manifest that says what it holds."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_samples import sample_record, sample_records

from corpusgen.provenance.merkle import merkle_root
from corpusgen.provenance.policy import Duty
from corpusgen.provenance.seal import (
    REQUIRED,
    DatasetFile,
    canonical_content,
    content_commitment,
    incomplete,
    manifest,
    manifest_digest,
    record_leaf,
    survey,
)
from corpusgen.records import Message
from corpusgen.store.shards import read_records, write_shard

# The test tree of the Certificate Transparency log, whose shape RFC 9162 keeps.
LEAVES = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


FILES = [
    DatasetFile(path="train/b.parquet", rows=2, sha256="b"),
    DatasetFile(path="train/a.parquet", rows=1, sha256="a"),
]


def row(**changes: Any) -> dict[str, Any]:
    return asdict(sample_record(**changes))


def rows(count: int) -> list[dict[str, Any]]:
    return [asdict(record) for record in sample_records(count)]


def sealed(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": "word-domain",
        "version": "1",
        "files": [
            DatasetFile(path="train/b.parquet", rows=2, sha256="b"),
            DatasetFile(path="train/a.parquet", rows=1, sha256="a"),
        ],
        "surveyed": survey(rows(3)),
        "duties": [Duty(kind="notice_file", applies_to="dataset", text="say so", terms_id="WordNet")],
        "terms": {"terms-test": ("smollm2-apache-2.0",)},
        "registry_digest": "r",
        "policy_digest": "p",
        "created_time": datetime(2026, 11, 22, 12, tzinfo=UTC),
        "record_schema_version": 1,
    }
    return manifest(**{**facts, **changes})


def test_a_record_with_complete_provenance_has_no_problem() -> None:
    assert incomplete([row()]) == []


@pytest.mark.parametrize("column", [*REQUIRED])
@pytest.mark.parametrize("nothing", [None, "", " ", (), [""]])
def test_a_record_that_lacks_any_of_its_origin_cannot_be_sealed(column: str, nothing: object) -> None:
    (problem,) = incomplete([{**row(), column: nothing}])
    assert problem.column == column


def test_a_column_that_is_not_there_counts_as_missing() -> None:
    short = row()
    del short["terms_set_id"]
    assert str(incomplete([short])[0]) == "record r000000: has no terms set (column terms_set_id)"


def test_no_assertion_is_no_licence() -> None:
    assert "NOASSERTION" in incomplete([row(licence_expression="NOASSERTION")])[0].message


def test_problems_are_listed_up_to_a_limit() -> None:
    endless = (row(teacher="") for _ in iter(int, 1))
    assert len(incomplete(endless, limit=7)) == 7


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_the_certificate_transparency_test_tree(size: int) -> None:
    assert merkle_root(LEAVES[:size]) == ROOTS[size]


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40))
def test_the_root_is_the_one_the_recursive_definition_gives(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == recursive_root(leaves).hex()


def recursive_root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


@pytest.mark.parametrize("column", sorted(asdict(sample_record())))
def test_a_change_in_any_column_changes_the_leaf(column: str) -> None:
    assert record_leaf({**row(), column: "changed"}) != record_leaf(row())


def test_leaving_out_adding_or_reordering_records_changes_the_root() -> None:
    three = rows(3)
    roots = {survey(some).merkle_root for some in (three, three[:2], three[::-1], three + three[:1])}
    assert len(roots) == 4


def test_a_record_and_its_row_in_a_file_have_the_same_leaf(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", sample_records(3))
    read = [vars(record) for record in read_records([tmp_path / "a.parquet"])]
    assert survey(read) == survey(pq.read_table(tmp_path / "a.parquet").to_pylist())


def test_a_turn_is_committed_to_as_role_and_text_as_it_always_was() -> None:
    assert b'"messages":[{"content":"hi","role":"user"}]' in canonical_content(
        vars(sample_record(messages=(Message(role="user", content="hi"),)))
    )


def test_a_column_added_later_does_not_change_old_commitments() -> None:
    assert content_commitment({**row(), "new_column": None}) == content_commitment(row())


def test_a_nonce_makes_a_guessable_record_unrecognisable() -> None:
    assert content_commitment(row(), b"secret") != content_commitment(row())


def test_a_log_probability_of_minus_infinity_is_not_nothing() -> None:
    never, nothing = row(token_logprobs=(float("-inf"),)), row(token_logprobs=(None,))
    assert content_commitment(never) != content_commitment(nothing)


def test_a_survey_counts_teachers_terms_licences_and_splits() -> None:
    counted = survey([*rows(2), row(record_id="r9", teacher="other", dataset_split="gold")]).counts
    assert counted["teacher"] == {"other": 1, "scripted/test": 2}
    assert counted["split"] == {"gold": 1, "train": 2}


def test_a_manifest_lists_its_files_in_order_with_root_counts_and_duties() -> None:
    found = sealed()
    assert [file["path"] for file in found["files"]] == ["train/a.parquet", "train/b.parquet"]
    assert found["merkle"]["root"] == survey(rows(3)).merkle_root
    assert found["rows"] == 3
    assert found["duties"][0]["terms_id"] == "WordNet"


def test_a_manifest_does_not_depend_on_order_or_time_zone() -> None:
    elsewhere = datetime(2026, 11, 22, 14, tzinfo=timezone(timedelta(hours=2)))
    assert manifest_digest(sealed(files=FILES[::-1], created_time=elsewhere)) == manifest_digest(sealed())
