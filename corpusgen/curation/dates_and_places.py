"""When and where somebody was: dates of birth, geographic coordinates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from corpusgen.curation.found import Found, personal

REACH = 64
"""How far before a stretch of digits a telling word may stand."""
MONTH = (
    r"(?>(?:jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez|mär|mrz|fév|avr|aoû|déc|ene|abr|ago|dic|gen|mag"
    r"|giu|lug|set|ott|out)[^\W\d_]{0,7}+\.?)"
)
YEAR = r"(?:19|20)[0-9]{2}"
BIRTH_STEMS = (
    "born", "irth", "dob", "d.o.b", "gebor", "geb.", "geburt", "geboort", "né", "naci", "naissance", "nat", "nasc",
    "urodz",
)  # fmt: skip
BIRTH = re.compile(
    r"(?i:(?<![^\W\d_])(?>d\.?o\.?b\.?|dateofbirth|date[ _]of[ _]birth|birth[ _-]?date|birthday|born|geboren|geb\."
    r"|geburtsdatum|geburtstag|née?|date de naissance|nacid[oa]|fecha de nacimiento|nat[oa]|data di nascita|nascid[oa]"
    r"|data de nascimento|geboortedatum|urodzon[ya]|data urodzenia)[^0-9\n]{0,24}?(?<![0-9])(?P<date>"
    rf"{YEAR}[-/.](?P<m1>[0-9]{{1,2}})[-/.](?P<d1>[0-9]{{1,2}})"
    rf"|(?P<d2>[0-9]{{1,2}})[-/. ]{{1,2}}(?P<m2>[0-9]{{1,2}})[-/. ]{{1,2}}(?:{YEAR}|[0-9]{{2}})"
    rf"|[0-3]?[0-9](?>st|nd|rd|th|er|º|\.)? (?>de |of )?{MONTH},?(?>(?: de| del)?) {YEAR}"
    rf"|{MONTH} [0-3]?[0-9](?:st|nd|rd|th)?,? {YEAR}"
    r")(?![0-9]))"
)

PART = r"[0-9]{1,2}(?:\.[0-9]{1,8}+)?[ ]?"
ANGLE = rf"(?>(?:\.[0-9]{{1,12}}+)?[ ]?°[ ]?(?:{PART}['′’](?!')[ ]?)?(?:{PART}(?:[\"″”]|'')[ ]?)?)"
COMPASS = re.compile(rf"(?<![0-9.])[0-9]{{1,2}}{ANGLE}[NS][,;/ ]{{0,3}}[0-9]{{1,3}}{ANGLE}[EWO]")
PAIR = re.compile(
    r"(?<![0-9.])(?P<lat>[+-]?[0-9]{1,2}\.[0-9]{3,15}+)[ ]?°?[ ]?[NS]?(?>[,;/|\"' &:=]|lo?ng?(?:itude)?){1,12}?"
    r"(?P<lon>[+-]?[0-9]{1,3}\.[0-9]{3,15}+)(?![0-9.])"
)
PLACE_WORDS = re.compile(
    r"(?i:(?<![^\W\d_])(?:lat|latitude|lat[/,] ?lo?ng?|coord\w{0,8}|gps|geo|location|located at|position|latlng"
    r"|koordinaten|standort|maps|ll)(?![^\W\d_])[^0-9\n]{0,28}$)"
)


def births(text: str, start: int, end: int) -> Iterator[Found]:
    """Dates after words that tell of a birth."""
    first = max(0, start - REACH)
    window = text[first:end].lower()
    for match in BIRTH.finditer(text, first, end) if any(stem in window for stem in BIRTH_STEMS) else ():
        if all(1 <= int(match[name] or 1) <= 31 for name in ("d1", "m1", "d2", "m2")):
            yield personal("date_of_birth", *match.span("date"))


def places(text: str, start: int, end: int) -> Iterator[Found]:
    """Pairs of coordinates with hemispheres, or after a telling word."""
    yield from (personal("geo_coordinates", *match.span()) for match in COMPASS.finditer(text, start, end))
    for match in PAIR.finditer(text, start, end):
        fits = abs(float(match["lat"])) <= 90 and abs(float(match["lon"])) <= 180
        if fits and PLACE_WORDS.search(text, max(0, match.start() - 48), match.start()):
            yield personal("geo_coordinates", *match.span())
