from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation.exact import Repeat, fingerprint, normalised, without_repeats

Pairs = list[tuple[str, str]]


def kept(items: Pairs, known: dict[int, str] | None = None) -> tuple[list[str], list[Repeat]]:
    repeats: list[Repeat] = []
    left = without_repeats(
        items, name=lambda item: item[0], text=lambda item: item[1], report=repeats.append, known=known
    )
    return [name for name, _ in left], repeats


@pytest.mark.parametrize("same", ["A  Cat", " a cat\n", "a\u00a0cat", "\uff21 cat"])
def test_case_spacing_and_unicode_form_make_no_difference(same: str) -> None:
    assert fingerprint(same) == fingerprint("a cat")


@pytest.mark.parametrize("other", ["a cats", "acat", "a, cat", "a cat 2"])
def test_anything_else_makes_a_difference(other: str) -> None:
    assert fingerprint(other) != fingerprint("a cat")


def test_the_first_of_equals_is_kept_and_the_others_are_reported() -> None:
    names, repeats = kept([("1", "a cat"), ("2", "a dog"), ("3", "A CAT"), ("4", "a cat")])
    assert names == ["1", "2"]
    assert repeats == [Repeat(item_id="3", repeat_of="1"), Repeat(item_id="4", repeat_of="1")]


def test_an_item_given_twice_is_kept_once() -> None:
    assert kept([("1", "a cat"), ("1", "a cat")]) == (["1"], [Repeat(item_id="1", repeat_of="1")])


def test_what_is_known_already_is_not_kept() -> None:
    known: dict[int, str] = {}
    kept([("gold:9", "a cat")], known)
    assert kept([("1", "a cat"), ("2", "a dog")], known) == (["2"], [Repeat(item_id="1", repeat_of="gold:9")])


@given(st.lists(st.text(max_size=5)))
def test_every_item_is_kept_or_reported_and_no_two_kept_are_equal(texts: list[str]) -> None:
    items = [(str(number), text) for number, text in enumerate(texts)]
    names, repeats = kept(items)
    assert sorted([*names, *(repeat.item_id for repeat in repeats)]) == sorted(name for name, _ in items)
    forms = [normalised(texts[int(name)]) for name in names]
    assert len(set(forms)) == len(forms)


@given(st.text(alphabet="aB .\t\n\x1f\x7f"))
def test_ascii_is_folded_as_any_other_text(text: str) -> None:
    assert normalised(text) == " ".join(text.casefold().split())
