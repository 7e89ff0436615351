from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_samples import answer, drops, said

WHOLE = st.text(
    st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufffd"),
    max_size=40,
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("caf\ufffd", "holds replacement characters"),
        ("a\ud800", "holds halves of characters (lone surrogates)"),
        ("a\0", "holds control characters"),
        ("cafÃ©", "was read in the wrong encoding"),
        ("Ã© Ã¨ \0", "was read in the wrong encoding"),
    ],
)
def test_the_most_frequent_damage_is_the_reason(text: str, reason: str) -> None:
    found = said("encoding", answer(text))
    assert found is not None
    assert (found.kept, found.reason) == (False, reason)


def test_the_place_is_shown_in_characters_that_can_be_stored() -> None:
    found = said("encoding", answer("before \ud800 after"))
    assert found is not None
    assert found.detail == "before \\ud800 after"


def test_some_damage_can_be_put_up_with() -> None:
    assert not drops("encoding", answer("\ufffd" * 3), max_damaged=3)
    assert drops("encoding", answer("\ufffd" * 4), max_damaged=3)


def test_tabs_lines_joiners_and_marks_of_direction_are_no_damage() -> None:
    assert said("encoding", answer("a\tb\r\nc\fd 👨‍👩‍👧 \u200fעברית\u200e \ufeff")) is None


@given(WHOLE.filter(lambda text: not text.isascii()))
def test_what_is_read_as_cp1252_by_mistake_is_found(text: str) -> None:
    raw = text.encode()
    try:
        misread = raw.decode("cp1252")
    except UnicodeDecodeError:
        return
    assert drops("encoding", answer(misread))
