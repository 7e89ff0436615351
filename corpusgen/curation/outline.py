"""Where in a text the dear patterns are worth trying: one cheap pass over it, by classes of characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

KEY_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
CLASSES = bytes(0x6B if byte in KEY_LETTERS else 0x3D if byte in b"=:" else 0x20 for byte in range(256))
"""Characters that keys are made of become ``k``, signs that set a value ``=``."""
DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
"""Digits become ``0``."""
WIDE_COLON = re.compile("：")
LEAST_RUN = b"k" * 16
RUN = re.compile(rb"k*+")
ZONE = re.compile(rb"0(?<!00)0{0,33}+(?!0)(?:[^0]{1,20}+0{1,34}+(?!0))*+")
"""A stretch of digits whose gaps are short enough for one number, or a pair of coordinates; none has over 34."""


def coarse(text: str) -> bytes:
    """One byte a character, so that offsets stay; what is not Latin-1 becomes a question mark."""
    return text.encode("latin-1", "replace")


def runs_of(classes: bytes, least: bytes = LEAST_RUN) -> list[Span]:
    """Runs of sixteen key characters and more; prose has one in thousands of words."""
    found: list[Span] = []
    at = classes.find(least)
    while at >= 0:
        match = RUN.match(classes, at)
        end = match.end() if match else at
        found.append((at, end))
        at = classes.find(least, end)
    return found


def signs_of(text: str, classes: bytes, sign: bytes = b"=") -> Iterator[int]:
    """Where ``=``, ``:`` and the wide colon of Chinese stand; ``sign`` is what became of the first two, at its end."""
    size = len(sign)
    at = classes.find(sign)
    while at >= 0:
        yield at + size - 1
        at = classes.find(sign, at + size)
    if not text.isascii() and "：" in text:
        yield from (match.start() for match in WIDE_COLON.finditer(text))


def zones_of(raw: bytes) -> list[Span]:
    """Stretches of digits."""
    classes = raw.translate(DIGITS)
    return [match.span() for match in ZONE.finditer(classes)] if b"0" in classes else []
