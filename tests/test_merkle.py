"""One root over many leaves, and a handful of hashes that prove one: against another implementation, by recursion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.provenance.check_proof import root_above
from corpusgen.provenance.merkle import MerkleTree, inclusion, merkle_root

LEAVES = st.lists(st.binary(max_size=4), max_size=70)
SOME = st.lists(st.binary(max_size=4), min_size=1, max_size=70)


def half(size: int) -> int:
    """The largest power of two below it, where RFC 9162 splits a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def root_of(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    at = half(len(leaves))
    return hashlib.sha256(b"\1" + root_of(leaves[:at]) + root_of(leaves[at:])).digest()


def path_of(leaves: Sequence[bytes], index: int) -> list[str]:
    if len(leaves) == 1:
        return []
    at = half(len(leaves))
    if index < at:
        return [*path_of(leaves[:at], index), root_of(leaves[at:]).hex()]
    return [*path_of(leaves[at:], index - at), root_of(leaves[:at]).hex()]


@given(LEAVES)
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == root_of(leaves).hex()


@given(SOME, st.data())
def test_a_leafs_path_is_that_of_the_definition_and_leads_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    found = inclusion(iter(leaves), index)
    assert list(found.path) == path_of(leaves, index)
    assert found.root == root_of(leaves).hex() == root_above(leaves[index], index, len(leaves), list(found.path))


@given(SOME, st.data())
def test_no_other_leaf_leads_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index, other = data.draw(st.tuples(st.integers(0, len(leaves) - 1), st.binary(max_size=4)))
    found = inclusion(leaves, index)
    above = root_above(other, index, len(leaves), list(found.path))
    assert (above == found.root) == (other == leaves[index])


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_no_other_place_or_length_leads_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index, place = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=2, max_size=2, unique=True))
    found = inclusion(leaves, index)
    for at, path in ((place, found.path), (index, found.path[:-1]), (index, (*found.path, found.root))):
        try:
            above = root_above(leaves[index], at, len(leaves), list(path))
        except ValueError:
            continue
        assert above != found.root


@given(LEAVES, LEAVES)
def test_a_tree_goes_on_from_its_peaks(first: list[bytes], then: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in first:
        tree.add(leaf)
    again = MerkleTree.resumed(tree.size, tree.peaks)
    assert again.root == tree.root
    for leaf in then:
        again.add(leaf)
    assert (again.size, again.root) == (len(first + then), merkle_root(first + then))


def test_peaks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes of peaks do not make a tree of 3 leaves"):
        MerkleTree.resumed(3, bytes(32))


@pytest.mark.parametrize("index", [-1, 3])
def test_a_leaf_that_is_not_there_has_no_path(index: int) -> None:
    with pytest.raises(IndexError, match="in a tree of 3"):
        inclusion([b"a", b"b", b"c"], index)


@pytest.mark.parametrize(("size", "hashes"), [(1, 0), (2, 1), (1_000, 10), (40_000, 16)])
def test_a_proof_has_as_many_hashes_as_the_tree_has_levels(size: int, hashes: int) -> None:
    leaves = [number.to_bytes(4) for number in range(size)]
    assert max(len(inclusion(leaves, index).path) for index in (0, size // 2, size - 1)) == hashes
