"""Digests, and the buckets in which texts that share them are found."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from near_corpus import instructions, prose

from corpusgen.curation.buckets import Buckets, band_keys
from corpusgen.curation.minhash import PERMUTATIONS, Digests, least_hashes, least_hashes_numpy
from corpusgen.curation.near import DIGEST_BYTES, NearIndex, digests
from corpusgen.curation.shingles import words

TEXTS = [item.text for item in prose(7, 400)]


def test_a_digest_has_a_known_length_and_does_not_depend_on_the_portion() -> None:
    together = digests(TEXTS[:30])
    assert {len(digest) for digest in together} == {DIGEST_BYTES}
    assert together == [digests([text])[0] for text in TEXTS[:30]]


def test_digests_are_those_of_the_last_release() -> None:
    """Digests are stored: another rensa, or other shingles, would find nothing of what was kept before."""
    some = digests(["What is the capital of France?", "法国的首都是什么？", ""])
    assert hashlib.sha256(b"".join(some)).hexdigest()[:16] == "1cc383887061691a"


def test_the_numpy_twin_estimates_the_same_likeness() -> None:
    texts = [words(text) for text in TEXTS]
    pairs = [(n, n + 1) for n in range(0, 398, 2)] + [(0, 0)]
    by_rensa, by_numpy = (
        [float((rows[a] == rows[b]).mean()) for a, b in pairs]
        for rows in (least_hashes(texts), least_hashes_numpy(texts))
    )
    assert np.abs(np.array(by_rensa) - np.array(by_numpy)).mean() < 0.02


@pytest.mark.parametrize("made", [prose, instructions])
def test_the_numpy_twin_decides_the_same(made: type) -> None:
    texts = [item.text for item in made(8, 600)]
    decisions = [
        NearIndex(text_of=texts.__getitem__, least=least).add_many(texts, range(len(texts)))
        for least in (least_hashes, least_hashes_numpy)
    ]
    assert [found is None for found in decisions[0]] == [found is None for found in decisions[1]]


ROWS = arrays.arrays(np.uint32, st.tuples(st.integers(1, 40), st.just(PERMUTATIONS)), elements=st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 40), st.integers(1, 5))
def test_many_rows_at_once_are_found_as_if_one_after_the_other(rows: Digests, cut: int, most: int) -> None:
    singly, at_once = Buckets(most=most), Buckets(most=most)
    for row, keys in zip(rows, band_keys(rows), strict=True):
        singly.add(row, keys, singly.meet(row, keys, words=1, most=9).room)
    at_once.add_many(rows[:cut])
    at_once.add_many(rows[cut:])
    for row, keys in zip(rows, band_keys(rows), strict=True):
        one, other = (buckets.meet(row, keys, words=1, most=9) for buckets in (singly, at_once))
        assert one.rows.tolist() == other.rows.tolist()
        assert one.room.tolist() == other.room.tolist()


def test_a_bucket_names_only_its_first_rows_and_says_that_it_is_full() -> None:
    buckets = Buckets(most=3)
    rows = np.ones((10, PERMUTATIONS), np.uint32)
    buckets.add_many(rows)
    met = buckets.meet(rows[0], band_keys(rows)[0], words=1, most=9)
    assert met.rows.tolist() == [0, 1, 2]
    assert not met.room.any()


def test_an_index_of_many_rows_stays_small() -> None:
    buckets = Buckets(most=16)
    draw = np.random.default_rng(1)
    for _ in range(5):
        buckets.add_many(draw.integers(0, 2**32, (1_000, PERMUTATIONS), dtype=np.uint32))
    assert buckets.nbytes / len(buckets) < 2_000
