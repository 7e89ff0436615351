"""Text that a reader does not see: invisible signs, and words written in base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")
"""Letters that no font draws; after a black flag they make the flags of England, Scotland and Wales."""
_REORDERED = re.compile("[\u202d\u202e]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{3,}")
"""One may choose the form of the sign before it; several in a row say something of their own."""
_WIDTHLESS = re.compile(
    "[\u200b-\u200d\u2060-\u2064\ufeff]{3,}|(?<=[A-Za-z])[\u200b\u2060-\u2064\ufeff]{1,2}(?=[A-Za-z])"
)
_ISOLATES = re.compile("[\u202a\u202b\u2066-\u2068]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_LONGEST: Final = 8_192
"""Characters of one piece of base64 that are read."""
_PLAIN_SHARE = 0.9


def invisible(text: str) -> Iterator[re.Match[str]]:
    """Where signs stand that show nothing or change the order of others, and that no script needs there."""
    if text.isascii():
        return
    for pattern in (TAGS, _REORDERED, _SELECTORS, _WIDTHLESS):
        if hit := pattern.search(text):
            yield hit
    if not _RIGHT_TO_LEFT.search(text) and (hit := _ISOLATES.search(text)):
        yield hit


def tagged(text: str) -> str:
    """What the invisible tag letters of a text spell."""
    if text.isascii():
        return ""
    spelt = "".join(hit.group() for hit in TAGS.finditer(text))
    return "".join(chr(ord(sign) - 0xE0000) for sign in spelt if 0xE0020 <= ord(sign) < 0xE007F)


def encoded(text: str) -> Iterator[str]:
    """What pieces of base64 in a text say, where they say something in plain letters."""
    for found in _BASE64.finditer(text):
        told = _decoded(found.group()[:_LONGEST])
        if told is not None:
            yield told


def _decoded(piece: str) -> str | None:
    plain = piece.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        told = base64.b64decode(plain[: len(plain) // 4 * 4]).decode("utf-8", "ignore")
    except (binascii.Error, ValueError):
        return None
    readable = sum(sign.isalpha() or sign.isspace() for sign in told)
    return told if readable >= _PLAIN_SHARE * len(told) - 4 and " " in told else None
