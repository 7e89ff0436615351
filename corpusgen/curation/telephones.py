"""Telephone numbers: international ones, national forms with separators, and anything after a telling word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from corpusgen.curation.checksums import isbn10
from corpusgen.curation.found import Found, personal

NOT_DIGIT = re.compile(r"[^0-9]+")
BEGIN = r"(?<![A-Za-z0-9])(?<![0-9][-./])"
END = r"(?![A-Za-z0-9])(?![-./][0-9])"

CALLING_CODE = re.compile(
    r"1[2-9]|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[12368]|2[2-6][0-9]|29[0-9]|35[0-9]|3[78][0-9]"
    r"|42[013]|50[0-9]|59[0-9]|6[7-9][0-9]|80[08]|85[0-9]|8[78][0-9]|9[67][0-9]|99[2-68]"
)
FOREIGN = re.compile(
    r"(?<![A-Za-z0-9+])(?<![0-9][-./])(?:\+|(?<![0-9]{2} )00[ ]?)"
    r"[1-9](?:[ \u00a0\u202f\u2011().\-/]{0,3}+[0-9]){6,14}+(?![0-9A-Z])"
)
AMERICAN = re.compile(
    BEGIN
    + r"(?:\+?1[ .-])?(?:\([2-9](?!11)[0-9]{2}\)[ -]?|[2-9](?!11)[0-9]{2}[ .\u2011-])[0-9]{3}[ .\u2011-][0-9]{4}"
    + END
)
TRUNK = re.compile(
    BEGIN
    + r"(?<![0-9]{2} )(?:\(0[1-9][0-9]{0,4}+\)|0[1-9][0-9]{0,4}+)"
    + r"(?:[ \u00a0/.\u2011-]{1,3}+[0-9]{2,8}+){1,5}+(?! [0-9])"
    + END
)
"""A national number with its leading 0, as in Britain, Germany, France, Italy, Japan, Australia …"""
BRACKETED = re.compile(BEGIN + r"\((?!(?:19|20)[0-9]{2}\))[0-9]{2,4}\)[ -]?[0-9]{3,5}[ -]?[0-9]{3,5}" + END)
NATIONAL = re.compile(
    BEGIN + "(?:"
    r"(?:0|91[ -])?[6-9][0-9]{4}[ -][0-9]{5}"  # India
    r"|[1-9][0-9] 9 ?[0-9]{4}[- ][0-9]{4}"  # Brazil
    r"|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}"  # China
    r"|8[ -]?\(?[3-9][0-9]{2}\)?[ -]?[0-9]{3}-[0-9]{2}-[0-9]{2}"  # Russia
    ")" + END
)
MOBILE = re.compile(BEGIN + r"0(?:6[0-9]{8}|7[0-9]{8,9}|1[567][0-9]{8,9}|4[0-9]{8})" + END)
CALLED = re.compile(BEGIN + r"\(?[0-9](?:[ \u00a0().\u2011\-/]{0,2}+[0-9]){6,13}" + END)
CALL_WORDS = re.compile(
    r"(?i:(?<![^\W\d_])(?:tel|telephone|phone|mobile|mob|cell(?:phone)?|call(?: me| us)?|fax|whatsapp|sms|text(?: me)?"
    r"|ring|dial|hotline|ph|handy|telefon\w{0,8}|rufnummer|tél|téléphone|portable|tel[eé]fono|m[oó]vil|celular|telefone"
    r"|telefoon|cellulare|(?:my|her|his|our|your|contact) number(?: is)?|reach (?:me|us|him|her|them)(?: at| on)?)"
    r"(?![^\W\d_])|电话|手机|電話|전화|телефон|тел)[^0-9\n]{0,18}$"
)
NO_CALL = re.compile(
    r"(?:1[0-9]|20)[0-9]{2} ?[-/–] ?(?:1[0-9]|20)[0-9]{2}$"  # years
    r"|(?:1[0-9]|20)[0-9]{2}[-./ ][01]?[0-9][-./ ][0-3]?[0-9](?:$|[ T.])"  # dates
    r"|[0-3]?[0-9][-./ ][0-3]?[0-9][-./ ](?:1[0-9]|20)[0-9]{2}$"
    r"|[0-9]{1,4}\.[0-9]{5,15}+$|[0-9]{1,3}(?: 000){2,4}$"  # fractions, round figures
)
ZIP = re.compile(r"0[0-9]{4}-[0-9]{4}")
"""Postal codes of New England."""
OTHER_NUMBER = re.compile(
    r"(?i:isbn|issn|doi|ean|upc|sku|[$€£¥₹]|usd|eur|order|invoice|version|serial|part no)[^0-9\n]{0,12}$"
)


def _foreign(value: str) -> bool:
    digits = NOT_DIGIT.sub("", value)
    number = digits if value.startswith("+") else digits[2:]
    if not 8 <= len(number) <= 15 or CALLING_CODE.match(number) is None or value.count("(") != value.count(")"):
        return False
    return number[0] != "1" or (len(number) == 11 and number[1] in "23456789")


def _trunk(value: str) -> bool:
    return 9 <= len(NOT_DIGIT.sub("", value)) <= 12 and NO_CALL.match(value) is None and ZIP.fullmatch(value) is None


def _bracketed(value: str) -> bool:
    return 8 <= len(NOT_DIGIT.sub("", value)) <= 11


def _mobile(value: str) -> bool:
    return len(value) != 10 or not isbn10(value)


def _callable(value: str) -> bool:
    return NO_CALL.match(value.lstrip("(")) is None


FORMS: tuple[tuple[int, re.Pattern[str], Callable[[str], bool]], ...] = (
    (8, FOREIGN, _foreign),
    (10, AMERICAN, _callable),
    (9, TRUNK, _trunk),
    (8, BRACKETED, _bracketed),
    (10, NATIONAL, _callable),
    (10, MOBILE, _mobile),
)
"""The fewest digits, the pattern, what must hold."""


def telephones(text: str, start: int, end: int, digits: int) -> Iterator[Found]:
    """Telephone numbers in one stretch of digits."""
    for least, pattern, holds in FORMS:
        for match in pattern.finditer(text, start, end) if digits >= least else ():
            at = match.start()
            if holds(match.group()) and OTHER_NUMBER.search(text, max(0, at - 24), at) is None:
                yield personal("phone", *match.span())
    for match in CALLED.finditer(text, start, end) if digits >= 7 else ():
        if _callable(match.group()) and CALL_WORDS.search(text, max(0, match.start() - 36), match.start()):
            yield personal("phone", *match.span())
