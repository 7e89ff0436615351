"""Texts whose characters were damaged on the way: replaced, cut in half, or read in the wrong encoding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Final

from pydantic import Field

from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import TextSettings, fails, shown
from corpusgen.records import Json

SUMMARY: Final = "replacement and control characters, halves of characters, text read in the wrong encoding"
EXAMPLE: Final[dict[str, Json]] = {"sides": ["prompt", "answer"]}

_MORE: Final = 1_000
"""Places counted beyond the most that is put up with."""
_DAMAGE: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd-\uffff]")
_WORDS: Final = {
    "replacement": "holds replacement characters",
    "half": "holds halves of characters (lone surrogates)",
    "control": "holds control characters",
    "misread": "was read in the wrong encoding",
}
# How cp1252 shows the bytes 80 to BF, which follow the first byte of a character in UTF-8.
_SHOWN: Final = {bytes([byte]).decode("cp1252", "replace"): byte for byte in range(0x80, 0xC0)} | {
    chr(byte): byte for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_FOLLOWING: Final = "".join(map(re.escape, sorted(shown for shown in _SHOWN if shown != "\ufffd")))
_MISREAD: Final = re.compile(f"[\u00c2-\u00df][{_FOLLOWING}]|[\u00e0-\u00ef][{_FOLLOWING}]{{2}}|ð[{_FOLLOWING}]{{3}}")


class Settings(TextSettings):
    """How much damage is put up with."""

    max_damaged: Annotated[int, Field(ge=0, le=10**6)] = Field(0, description="Most damaged places in a text")


def check_text(text: str, settings: Settings) -> Finding | None:
    """Whether the text's characters are whole; the reason names the most frequent damage."""
    kinds: Counter[str] = Counter()
    first = None
    for kind, place in islice(chain(_broken(text), _misread(text)), settings.max_damaged + _MORE):
        kinds[kind] += 1
        first = place if first is None else first
    if kinds.total() <= settings.max_damaged or first is None:
        return None
    worst = kinds.most_common(1)[0][0]
    detail = shown(repr(text[max(0, first - 20) : first + 20])[1:-1])
    return fails(
        "encoding",
        _WORDS[worst],
        detail=detail,
        metric="damaged places",
        score=kinds.total(),
        threshold=settings.max_damaged,
    )


def _broken(text: str) -> Iterator[tuple[str, int]]:
    for found in _DAMAGE.finditer(text):
        half = "\ud800" <= found[0] <= "\udfff"
        yield "replacement" if found[0] == "\ufffd" else "half" if half else "control", found.start()


def _misread(text: str) -> Iterator[tuple[str, int]]:
    """Characters that are the bytes of another character, each byte shown as one of its own."""
    if text.isascii():
        return
    for found in _MISREAD.finditer(text):
        if _as_utf8(found[0]):
            yield "misread", found.start()


def _as_utf8(run: str) -> bool:
    try:
        bytes([ord(run[0]), *(_SHOWN[letter] for letter in run[1:])]).decode()
    except UnicodeDecodeError:
        return False
    return True
