"""Seed text as data: between markers that it cannot contain, so that where it ends is not for the seed to say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_DIGITS = 12


def row_key(values: Mapping[str, str]) -> bytes:
    """The digest of a row: the same for the same row, and another if any of its values is.

    All values go into it, so that none of them can hold the marker of another.
    """
    told = hashlib.sha256()
    for name, value in sorted(values.items()):
        for part in (name, value):
            text = part.encode("utf-8", "surrogatepass")
            told.update(len(text).to_bytes(8) + text)
    return told.digest()


def quoted(text: str, key: bytes) -> str:
    """A text between two markers that come of the row's digest: ``<data-3f9a…>`` and ``</data-3f9a…>``.

    A text that holds the marker all the same, in whatever case, gets the next one of the same row.
    """
    mark, seen = _mark(key), text.lower()
    while mark in seen:
        key = hashlib.sha256(key).digest()
        mark = _mark(key)
    return f"<{mark}>\n{text}\n</{mark}>"


def _mark(key: bytes) -> str:
    return f"data-{key.hex()[:_DIGITS]}"
