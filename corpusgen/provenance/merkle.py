"""Merkle trees in the shape of RFC 9162: one root over many leaves, and a handful of hashes that prove one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

HASH_BYTES = 32


@dataclass
class MerkleTree:
    """Takes leaves one by one in order and knows the root at any time, with one hash per level in memory."""

    size: int = 0
    _complete: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    def resumed(cls, size: int, peaks: bytes) -> MerkleTree:
        """A tree of so many leaves, from what its ``peaks`` were. Raises ValueError where they are of another size."""
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        if len(peaks) != HASH_BYTES * len(levels):
            raise ValueError(f"{len(peaks)} bytes of peaks do not make a tree of {size} leaves")
        nodes = [peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)]
        return cls(size, list(zip(levels, nodes, strict=True)))

    @property
    def peaks(self) -> bytes:
        """The roots of the complete trees in it, largest first: all that is needed to go on."""
        return b"".join(node for _, node in self._complete)

    def add(self, leaf: bytes) -> None:
        """Put the next leaf in."""
        level, node = 0, leaf_hash(leaf)
        while self._complete and self._complete[-1][0] == level:
            node = _join(self._complete.pop()[1], node)
            level += 1
        self._complete.append((level, node))
        self.size += 1

    @property
    def root(self) -> str:
        """The root of the leaves so far, in hex; without leaves, the hash of nothing."""
        if not self._complete:
            return hashlib.sha256().hexdigest()
        node = self._complete[-1][1]
        for _, left in reversed(self._complete[:-1]):
            node = _join(left, node)
        return node.hex()


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """Where a leaf stands in a tree, and the hashes beside its way to the root, from the bottom up."""

    index: int
    size: int
    root: str
    path: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    level: int
    value: bytes
    holds: bool
    """Whether the leaf is below it."""


def merkle_root(leaves: Iterable[bytes]) -> str:
    """The root of a tree over leaves in the order given (RFC 9162, SHA-256)."""
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root


def inclusion(leaves: Iterable[bytes], index: int) -> Inclusion:
    """What proves that a leaf is in a tree, from one pass that keeps one hash per level in memory.

    Raises IndexError where the tree has no such leaf.
    """
    open_nodes, path, size = list[_Node](), list[str](), 0
    for size, leaf in enumerate(leaves, start=1):
        open_nodes.append(_Node(0, leaf_hash(leaf), size == index + 1))
        while len(open_nodes) > 1 and open_nodes[-1].level == open_nodes[-2].level:
            _join_last(open_nodes, path)
    if not 0 <= index < size:
        raise IndexError(f"no leaf {index} in a tree of {size}")
    while len(open_nodes) > 1:
        _join_last(open_nodes, path)
    return Inclusion(index=index, size=size, root=open_nodes[0].value.hex(), path=tuple(path))


def _join_last(nodes: list[_Node], path: list[str]) -> None:
    right, left = nodes.pop(), nodes.pop()
    if left.holds or right.holds:
        path.append((right if left.holds else left).value.hex())
    nodes.append(_Node(left.level + 1, _join(left.value, right.value), left.holds or right.holds))


def leaf_hash(leaf: bytes) -> bytes:
    """The hash that stands for a leaf in the tree."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
