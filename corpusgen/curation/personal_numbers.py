"""Numbers that people are known by: bank accounts, cards, passports, the ids of states.

Every pattern is tried only on stretches of digits. Separators and digits never match the same character, and all
quantifiers have an upper end, so there is little to go back over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from corpusgen.curation import checksums
from corpusgen.curation.found import Found, personal

REACH = 64
"""How far before a number a telling word may stand."""
NOT_KEPT = re.compile(r"[^0-9A-Za-z]+")

BEGIN = r"(?<![A-Za-z0-9])(?<![0-9][-./])"
END = r"(?![A-Za-z0-9])(?![-./][0-9])"
GAP = r"[ \u00a0\u202f\u2011-]?"
TWO, THREE = "[0-9]{2}", "[0-9]{3}"
RESIDENT = r"[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]"


@dataclass(frozen=True, kw_only=True)
class Number:
    """One written form of a kind: the fewest digits, the pattern, what must hold, the words that must be near."""

    kind: str
    digits: int
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]
    near: re.Pattern[str] | None = None


def _ssn(value: str) -> bool:
    area, group, serial = int(value[:3]), int(value[3:5]), int(value[5:])
    if area >= 900:
        return group >= 50 and serial > 0
    return area not in (0, 666) and group > 0 and serial > 0


def _nino(value: str) -> bool:
    return value[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _resident(value: str) -> bool:
    total = checksums.weighted(value[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    return "10X98765432"[total % 11] == value[17]


def _ean(value: str) -> bool:
    return checksums.weighted(value, (1, 3)) % 10 == 0


CARD_RANGES: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (400000, 499999, (16, 19)), (510000, 559999, (16,)), (222100, 272099, (16,)), (340000, 349999, (15,)),
    (370000, 379999, (15,)), (601100, 601199, (16, 19)), (622126, 622925, (16, 17, 18, 19)), (644000, 659999, (16, 19)),
    (300000, 305999, (14, 16)), (309500, 309599, (14,)), (360000, 369999, (14,)), (380000, 399999, (14, 16)),
    (352800, 358999, (16, 19)), (620000, 629999, (16, 17, 18, 19)), (220000, 220499, (16,)), (508500, 508999, (16,)),
    (501800, 501899, (13, 16, 19)), (502000, 502099, (13, 16, 19)), (503800, 503899, (13, 16, 19)),
    (589300, 589399, (16, 19)), (630400, 630499, (16, 18, 19)), (675900, 676399, (13, 16, 18, 19)),
    (606282, 606282, (16,)), (636368, 636368, (16,)), (504175, 504175, (16,)),
)  # fmt: skip
"""First six digits of issuers (Visa, Mastercard, Amex, Discover, Diners, JCB, UnionPay, Mir, RuPay, Maestro, Elo)."""


def _card(value: str) -> bool:
    issuer, size = int(value[:6]), len(value)
    known = any(low <= issuer <= high and size in sizes for low, high, sizes in CARD_RANGES)
    return known and checksums.luhn(value)


def _word(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?i:(?<![a-z])(?:{words})(?![a-z]))")


def _form(
    kind: str, digits: int, pattern: str, holds: Callable[[str], bool], near: re.Pattern[str] | None = None
) -> Number:
    return Number(kind=kind, digits=digits, pattern=re.compile(BEGIN + pattern + END), holds=holds, near=near)


def _shape(value: str) -> bool:
    return len(set(value)) > 1


SSN_WORDS = _word("ssn|social security(?: number| no\\.?)?|soc\\. ?sec\\.?|itin|taxpayer id\\w{0,20}|tin")
BSN_WORDS = _word("bsn|burgerservicenummer|sofi(?:-?nummer)?|citizen service number")
PESEL_WORDS = _word("pesel")
NHS_WORDS = _word("nhs(?: number| no\\.?)?|national health(?: service)?")
SIN_WORDS = _word("sin|social insurance(?: number)?|nas|assurance sociale")
AADHAAR_WORDS = _word("aadhaar|aadhar|uidai|uid")
PAN_WORDS = _word("pan|permanent account number")
PASSPORT_WORDS = _word("passport(?: number| no\\.?)?|reisepass(?:nummer)?|passeport|pasaporte|passaporto|passaporte")
CARD_WORDS = _word("card|visa|credit|debit|payment|kreditkarte|carte|tarjeta|cartão|cc")
ID_WORDS = _word("id|identity|resident|身份证(?:号码?)?|shenfenzheng")

FORMS: tuple[Number, ...] = (
    _form("credit_card", 16, r"[2-6][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?", _card),
    _form("credit_card", 14, r"3[0-9]{3}([ -]?)[0-9]{6}\1[0-9]{4,5}", _card),
    _form("credit_card", 13, r"[56][0-9]{12,18}", _card),
    _form("credit_card", 13, r"4[0-9]{12}", checksums.luhn, CARD_WORDS),
    _form("ssn", 9, r"[0-9]{3}([-\u2011\u2013 ])[0-9]{2}\1[0-9]{4}", _ssn),
    _form("ssn", 9, r"[0-9]{9}", _ssn, SSN_WORDS),
    _form("uk_nino", 6, rf"(?:QQ|[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]){GAP}{TWO}{GAP}{TWO}{GAP}{TWO}{GAP}[A-D]", _nino),
    _form("uk_nhs", 10, rf"{THREE}{GAP}{THREE}{GAP}[0-9]{{4}}", checksums.nhs_number, NHS_WORDS),
    _form(
        "fr_nir",
        13,
        rf"[12]{GAP}{TWO}{GAP}(?:0[1-9]|1[0-2]|[2-4][0-9]){GAP}(?:{TWO}|2[AB]){GAP}{THREE}{GAP}{THREE}{GAP}{TWO}",
        checksums.french_nir,
    ),
    _form("de_tax_id", 11, rf"[1-9][0-9]{GAP}{THREE}{GAP}{THREE}{GAP}{THREE}", checksums.german_tax_id),
    _form("es_dni", 7, r"(?:[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}|[XYZ]-?[0-9]{7})[ -]?[A-HJ-NP-TV-Z]", checksums.spanish_id),
    _form(
        "it_codice_fiscale",
        1,
        r"[A-Z]{3} ?[A-Z]{3} ?[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2} ?[A-Z][0-9L-NP-V]{3}[A-Z]",
        checksums.codice_fiscale,
    ),
    _form("nl_bsn", 9, r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}", checksums.dutch_bsn, BSN_WORDS),
    _form("nl_bsn", 9, r"[0-9]{3} [0-9]{3} [0-9]{3}", checksums.dutch_bsn, BSN_WORDS),
    _form("pl_pesel", 11, r"[0-9]{11}", checksums.polish_pesel, PESEL_WORDS),
    _form("ch_ahv", 13, r"756([. ]?)[0-9]{4}\1[0-9]{4}\1[0-9]{2}", _ean),
    _form("ca_sin", 9, r"[1-79][0-9]{2}[ -]?[0-9]{3}[ -]?[0-9]{3}", checksums.luhn, SIN_WORDS),
    _form("in_aadhaar", 12, r"[2-9][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}", checksums.verhoeff),
    _form("in_aadhaar", 12, r"[2-9][0-9]{11}", checksums.verhoeff, AADHAAR_WORDS),
    _form("in_pan", 4, r"[A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z]", _shape),
    _form("in_pan", 4, r"[A-Z]{5}[0-9]{4}[A-Z]", _shape, PAN_WORDS),
    _form("passport_number", 6, r"[A-Z]{0,2}[0-9]{6,9}", _shape, PASSPORT_WORDS),
    _form("br_cpf", 11, r"[0-9]{3}(\.?)[0-9]{3}\1[0-9]{3}[-/]?[0-9]{2}", checksums.brazilian_cpf),
    _form("br_cnpj", 14, r"[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}/?[0-9]{4}-?[0-9]{2}", checksums.brazilian_cnpj),
    _form("br_cnpj", 4, r"[0-9A-Z]{2}\.[0-9A-Z]{3}\.[0-9A-Z]{3}/[0-9A-Z]{4}-[0-9]{2}", checksums.brazilian_cnpj),
    _form("cn_resident_id", 17, RESIDENT, _resident),
)

IBAN_HEAD = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?=[ \u00a0-]?[A-Za-z0-9])")
IBAN_BODY = re.compile(r"[A-Za-z0-9](?:[ \u00a0-]?[A-Za-z0-9]){13,33}+")

LIFE = r"(?P<born>[0-9]{6})(?P<c1>[0-9])[MFX<](?P<until>[0-9]{6})(?P<c2>[0-9])"
MRZ = re.compile(
    r"(?:(?<![A-Z0-9<])[PVIAC][A-Z<][A-Z<]{3}[A-Z<]{31,39}\s{1,4})?(?<![A-Z0-9<])"
    rf"(?P<no>[A-Z0-9<]{{9}})(?P<c0>[0-9<])[A-Z<]{{3}}{LIFE}[A-Z0-9<]{{8,16}}"
)
MRZ_CARD = re.compile(
    r"(?<![A-Z0-9<])[IAC][A-Z0-9<][A-Z<]{3}(?P<no>[A-Z0-9<]{9})(?P<c0>[0-9<])[A-Z0-9<]{15}\s{1,4}"
    rf"{LIFE}[A-Z<]{{3}}[A-Z0-9<]{{11}}[0-9](?:\s{{1,4}}[A-Z<]{{30}})?"
)


def _is_near(text: str, start: int, end: int, words: re.Pattern[str]) -> bool:
    return words.search(text, max(0, start - REACH), start) is not None or words.search(text, end, end + 24) is not None


def _formed(text: str, start: int, end: int, digits: int) -> Iterator[Found]:
    for form in FORMS:
        if digits < form.digits:
            continue
        for match in form.pattern.finditer(text, start, end):
            if form.holds(NOT_KEPT.sub("", match.group()).upper()) and (
                form.near is None or _is_near(text, *match.span(), form.near)
            ):
                yield personal(form.kind, *match.span())


def _iban_end(text: str, start: int) -> int:
    size = checksums.IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    body = IBAN_BODY.match(text, start) if size else None
    if body is None:
        return 0
    kept = [place for place, char in enumerate(body.group()) if char.isalnum()][:size]
    end = kept[-1] + 1
    value = NOT_KEPT.sub("", body.group()[:end]).upper()
    return start + end if checksums.iban(value) and not text[start + end : start + end + 1].isalnum() else 0


def _accounts(text: str, start: int, end: int) -> Iterator[Found]:
    for head in IBAN_HEAD.finditer(text, start, end):
        stop = _iban_end(text, head.start())
        if stop:
            yield personal("iban", head.start(), stop)


def numbers(text: str, start: int, end: int, digits: int) -> Iterator[Found]:
    """Numbers of states, banks and issuers of cards in one stretch of digits."""
    first, last = max(0, start - 12), end + 4
    yield from _formed(text, first, last, digits)
    yield from _accounts(text, first, last)


def passports(text: str) -> Iterator[Found]:
    """Machine-readable zones, whose three check digits must hold, around each ``<<`` that fills them."""
    at = text.find("<<")
    while at >= 0:
        for match in (
            *MRZ.finditer(text, max(0, at - 100), at + 200),
            *MRZ_CARD.finditer(text, max(0, at - 100), at + 200),
        ):
            fields = (("no", "c0"), ("born", "c1"), ("until", "c2"))
            if all(checksums.mrz_digit(match[field], match[check]) for field, check in fields):
                yield personal("passport_mrz", *match.span())
        at = text.find("<<", at + 50)
