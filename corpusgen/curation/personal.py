"""Personal data in a text, of every kind. Imported at the first scan: its patterns take a while to compile."""

from __future__ import annotations

import re
from collections.abc import Iterator

from corpusgen.curation import dates_and_places, network_addresses, personal_numbers, telephones
from corpusgen.curation.found import Found
from corpusgen.curation.outline import CLASSES, runs_of, zones_of

YEARS = re.compile(r"1[0-9]{3}[-–/]1[0-9]{3}(?![0-9A-Za-z])")
NOT_DIGIT = re.compile(r"[^0-9]+")


def _has_room(text: str, start: int, end: int) -> bool:
    """Long enough for a number, or joined to letters on both sides; years from and to are neither."""
    if end - start >= 6:
        return end - start != 9 or YEARS.match(text, start) is None
    return end - start >= 4 and text[start - 1 : start].isalpha() and text[end : end + 1].isalpha()


def _numbers(text: str, start: int, end: int) -> Iterator[Found]:
    digits, last = len(NOT_DIGIT.sub("", text[start:end])), end + 4
    yield from personal_numbers.numbers(text, start, end, digits)
    yield from dates_and_places.births(text, start, last)
    if text.count(".", start, end) > 1 or "°" in text[start:last]:
        yield from network_addresses.dotted(text, start, end)
        yield from dates_and_places.places(text, max(0, start - 1), last)
    if digits >= 7:
        yield from telephones.telephones(text, max(0, start - 2), last, digits)


def personal_data(text: str, raw: bytes) -> Iterator[Found]:
    """Everything that looks like personal data; places may overlap. ``raw`` is the coarse text."""
    if "@" in text:
        yield from network_addresses.emails(text)
    if "<<" in text:
        yield from personal_numbers.passports(text)
    if ":" in text or "-" in text:
        yield from network_addresses.colons(text)
        yield from network_addresses.hardware(text)
    runs = runs_of(raw.translate(CLASSES))
    if runs:
        yield from network_addresses.wallets(text, runs)
    for start, end in zones_of(raw):
        if _has_room(text, start, end):
            yield from _numbers(text, start, end)
