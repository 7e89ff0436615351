"""Exact repeats: texts that are equal but for case, spacing and Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import xxhash

from corpusgen.marks import Marks, mark_of

T = TypeVar("T")
AT_ONCE = 128
"""Items whose texts are looked up together."""


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """An item that says what an earlier one said."""

    item_id: str
    repeat_of: str


def normalised(text: str) -> str:
    """The text folded for comparison: NFKC, no case, single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
    elif text.isprintable() and "  " not in text:  # nothing but single spaces in it: nothing to take apart
        return text.lower().strip(" ")
    else:
        text = text.lower()
    return " ".join(text.split())


def fingerprint(text: str) -> int:
    """128-bit xxh3 of the normalised text."""
    return xxhash.xxh3_128_intdigest(normalised(text).encode("utf-8", "surrogatepass"))


def told_apart(items: Iterable[T], *, text: Callable[[T], str], seen: Marks) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it says something new; ``seen`` holds what counts as said already and is added to.

    For pools of any size: of what was said eight bytes are kept, so nobody can tell which item said it first.
    """
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        new = seen.add([mark_of(normalised(text(item))) for item in some])
        yield from zip(some, new, strict=True)


def without_repeats(
    items: Iterable[T],
    *,
    name: Callable[[T], str],
    text: Callable[[T], str],
    report: Callable[[Repeat], None],
    known: dict[int, str] | None = None,
) -> Iterator[T]:
    """The items that say something new; the first of equals is kept, the others are reported.

    ``known`` holds what counts as said already (fingerprint to name) and is added to.
    """
    seen = {} if known is None else known
    for item in items:
        mark = fingerprint(text(item))
        if mark in seen:
            report(Repeat(item_id=name(item), repeat_of=seen[mark]))
        else:
            seen[mark] = name(item)
            yield item
