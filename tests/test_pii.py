"""Personal data: what is found, masked, let through; what is not mistaken for it."""

from __future__ import annotations

import importlib
import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pii_samples import MADE, glosses, positives, technical

from corpusgen.curation import checksums
from corpusgen.curation.personal_numbers import Number
from corpusgen.curation.pii import BY_NAME, KINDS, USUAL, Rules, apply, kinds_in, masked, scan

_parser = importlib.import_module("re._parser")
DOCS = Path(__file__).parent.parent / "docs" / "curation.md"
MODULES = (
    "secrets", "network_addresses", "personal_numbers", "telephones", "dates_and_places", "outline", "personal",
)  # fmt: skip
ONE_PASS = {"NOT_DIGIT", "NOT_KEPT"}
"""A single class repeated with nothing after it: it cannot fail once begun."""


def kinds(text: str) -> tuple[str, ...]:
    return kinds_in(scan(text))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_committed_example_of_a_kind_is_found(name: str) -> None:
    examples = [text for kind, text in positives() if kind == name]
    assert len(examples) >= 2
    assert [text for text in examples if name not in kinds(text)] == []


def test_there_are_at_least_three_hundred_examples_and_two_thousand_lines_of_prose() -> None:
    assert len(positives()) >= 300
    assert len(technical()) + len(glosses()) >= 2000


def test_less_than_one_in_a_hundred_lines_of_prose_is_suspected() -> None:
    for lines in (technical(), glosses()[:4000]):
        assert sum(1 for line in lines if scan(line)) <= len(lines) // 1000


def test_the_examples_are_what_their_script_makes(tmp_path: Path) -> None:
    runpy.run_path(str(MADE / "make.py"))["write"](tmp_path)
    for name in ("positives.jsonl", "technical.txt"):
        assert (tmp_path / name).read_bytes() == (MADE / name).read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 and v10.20.30.40",
        "see 192.0.2.1, 198.51.100.7, 203.0.113.9, 2001:db8::1 and 127.0.0.1 in the manual",
        "at 12:30:45 std::string met a::b",
        "ISBN 978-3-16-148410-0 and 0-306-40615-2",
        "2026-01-31, 31.01.2026, 1998-2004, 1/2/2026 10:00",
        "it cost $212-555-0187",
        "card 4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 01",
        "000-12-3456 and 666-12-3456 and 123-00-4567",
        "icon@2x.png, git@github.com:a/b.git, @handle, a@b, a..b@example.com",
        "12345678A RSSMRA85T10A562T 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed",
        "52.5200, 13.4050 are two figures",
    ],
)
def test_what_looks_alike_is_let_be(text: str) -> None:
    assert scan(text) == []


def test_equal_values_share_a_number_however_they_are_spaced() -> None:
    text = "a@b.org, c@d.org, A@B.ORG; IBAN DE89370400440532013000 or DE89 3704 0044 0532 0130 00"
    said = masked(text, scan(text), {"email", "iban"})
    assert said == "[EMAIL_1], [EMAIL_2], [EMAIL_1]; IBAN [IBAN_1] or [IBAN_1]"


def test_only_the_kinds_asked_for_are_masked() -> None:
    text = "a@b.org from 8.8.8.8"
    assert masked(text, scan(text), {"ipv4"}) == "a@b.org from [IPV4_1]"


def test_a_masked_text_holds_nothing_any_more() -> None:
    for _, text in positives():
        assert scan(masked(text, scan(text), set(BY_NAME))) == []


def test_inner_addresses_are_told_apart_from_public_ones() -> None:
    assert kinds("10.0.0.17 and 93.184.216.34") == ("ipv4", "ipv4_private")
    assert kinds("fe80::1ff:fe23:4567:890a and 2606:4700:4700::1111") == ("ipv6", "ipv6_private")


def test_rules_mask_block_and_allow_by_kind() -> None:
    rules = Rules.of("mask", {"email": "block", "ipv4_private": "allow"})
    assert apply("from 10.0.0.17, DOB: 1987-03-12", rules).text == "from 10.0.0.17, DOB: [DATE_OF_BIRTH_1]"
    treated = apply("write to jane@example.org", rules)
    assert (treated.text, treated.kinds) == ("", ("email",))
    assert treated.blocked is not None
    assert treated.blocked.detail == 'email at character 9, "…" (16 characters)'


def test_the_usual_rules_are_those_of_the_table() -> None:
    assert {kind.name: USUAL.action(kind.name) for kind in KINDS} == {kind.name: kind.action for kind in KINDS}


def test_an_unknown_kind_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"no kind 'e-mail'.*email"):
        Rules.of("mask", {"e-mail": "mask"})
    with pytest.raises(ValueError, match="write block, mask or allow"):
        Rules.of("hide", {})
    with pytest.raises(ValueError, match="write block, mask or allow"):
        Rules.of("mask", {"email": "Mask"})


def test_the_documentation_names_every_kind_with_its_action() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"| `{kind.name}` | {kind.what} | {kind.validated} | {kind.action} |" in page


@given(st.text(alphabet=st.characters(), max_size=400))
def test_any_text_is_scanned_and_places_come_in_order_without_overlap(text: str) -> None:
    places = scan(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(places))
    assert all(0 <= place.start < place.end <= len(text) for place in places)


@given(st.lists(st.sampled_from([text for _, text in positives()]), min_size=2, max_size=4), st.sampled_from("\n\t |"))
def test_what_is_found_in_a_text_is_found_in_a_longer_one(texts: list[str], between: str) -> None:
    gap = f"\n{between}----------------------\n"
    whole = set(kinds(gap.join(texts)))
    assert all(place.kind in whole for text in texts for place in scan(text))


def test_texts_of_one_character_and_lone_surrogates_are_scanned() -> None:
    for text in ("", "\ud800" * 50, "1" * 20_000, "@" * 20_000, ":" * 20_000, "a" * 20_000, "<" * 20_000, "+" * 20_000):
        scan(text)


def _patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes]]]:
    for name in MODULES:
        for key, value in vars(importlib.import_module(f"corpusgen.curation.{name}")).items():
            for pattern in _within(value):
                yield f"{name}.{key}", pattern


def _within(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _within(item)
    elif isinstance(value, Number):
        yield from _within((value.pattern, value.near))


def _ways(parsed: Any) -> float:
    product = 1.0
    for operation, argument in parsed:
        product *= _ways_of(str(operation), argument)
    return product


def _ways_of(operation: str, argument: Any) -> float:
    """In how many ways this part can match the same place, at most: what backtracking could try."""
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, part = argument
        if most is _parser.MAXREPEAT:
            return float("inf")
        ways = _ways(part)
        return most - least + 1.0 if ways == 1 else sum(min(ways, 1e3) ** n for n in range(least, most + 1))
    if operation == "SUBPATTERN":
        return _ways(argument[-1])
    return sum(_ways(branch) for branch in argument[1]) if operation == "BRANCH" else 1.0


def test_no_pattern_can_go_back_more_than_a_fixed_number_of_times() -> None:
    """Possessive quantifiers never give back; the others are bounded, and so is the product of their choices."""
    found = [(name, _ways(_parser.parse(pattern.pattern, pattern.flags))) for name, pattern in _patterns()]
    assert len(found) > 80
    assert [row for row in found if row[1] > 7000 and row[0].partition(".")[2] not in ONE_PASS] == []


def test_the_measure_of_backtracking_sees_the_classic_trap() -> None:
    assert _ways(_parser.parse(r"(?:a{1,20}b?){1,20}c")) > 7000
    assert _ways(_parser.parse(r"a*b")) == float("inf")
    assert _ways(_parser.parse(r"a{1,20}+b")) == 1


def test_importing_the_scan_loads_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import corpusgen.curation.pii;"
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "['corpusgen']"


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checksums.luhn, "4242424242424242", "4242424242424241"),
        (checksums.iban, "MT84MALT011000012345MTLCAST001S", "MT84MALT011000012345MTLCAST001T"),
        (checksums.verhoeff, "2363", "2636"),
        (checksums.french_nir, "255081416802538", "255081416802537"),
        (checksums.german_tax_id, "86095742719", "86095742718"),
        (checksums.spanish_id, "X1234567L", "X1234567M"),
        (checksums.codice_fiscale, "MRTMTT91D08F205J", "MRTMTT91D08F205K"),
        (checksums.dutch_bsn, "111222333", "111222334"),
        (checksums.polish_pesel, "44051401359", "44051401358"),
        (checksums.nhs_number, "9434765919", "9434765918"),
        (checksums.brazilian_cpf, "52998224725", "52998224726"),
        (checksums.brazilian_cnpj, "12ABC34501DE35", "12ABC34501DE36"),
        (checksums.isbn10, "0306406152", "0306406153"),
        (checksums.base58check, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
        (checksums.bech32, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
        (checksums.bech32, "BC1SW50QGDZ25J", "BC1SW50QGDZ25Q"),
        (
            checksums.ethereum,
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed",
        ),
    ],
)
def test_checksums_hold_for_published_examples_only(check: Any, right: str, wrong: str) -> None:
    assert check(right)
    assert not check(wrong)


def test_keccak_is_ethereums_and_not_sha3() -> None:
    assert checksums.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
