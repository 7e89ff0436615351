"""What a check found in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PASSES: Final = "passes"
"""The reason of a finding that only tells a score; every other finding that is kept is a remark."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check says of one text: kept or not, why, and the figures it went by.

    A finding with ``kept`` True is a remark: it is reported and nothing is dropped for it.
    """

    check: str
    """The check's name: ``near``, ``decontaminate``, ``length`` …"""
    kept: bool
    reason: str
    """In a person's words, the same for all texts that fail in the same way, so that they can be counted."""
    metric: str | None = None
    """What ``score`` measures, such as ``word-multiset Jaccard``."""
    score: float | None = None
    threshold: float | None = None
    other: str | None = None
    """The text it repeats or leaks, by name."""
    detail: str | None = None
    """What is particular to this text: the passage that matches, the words that differ."""
