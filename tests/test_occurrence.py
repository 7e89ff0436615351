from __future__ import annotations

import html
import json
import sys
import unicodedata
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation.occurrence import Occurrence, folded
from corpusgen.errors import UsageError

NAME = Occurrence.of("Zoë O'Brien-Núñez")


@pytest.mark.parametrize(
    "text",
    [
        "mail from ZOË  o'brien-núñez, today",
        "a\nZoë\n\tO'Brien-Núñez",
        "Zoe\u0308 O'Brien-Nu\u0301n\u0303ez",
        json.dumps({"content": "Zoë O'Brien-Núñez"}),
        json.dumps({"arguments": json.dumps({"who": json.dumps("Zoë O'Brien-Núñez")})}),
        json.dumps("Zoë\nO'Brien-Núñez"),
        html.escape("<Zoë O'Brien-Núñez>"),
        quote("Zoë O'Brien-Núñez"),
        quote(quote("Zoë O'Brien-Núñez")),
        "https://x.example/?q=" + quote_plus("Zoë O'Brien-Núñez"),
        "Zo&amp;euml;&amp;nbsp;O&amp;#39;Brien-N&amp;uacute;&amp;ntilde;ez",
        "Zo&euml;%20O'Brien-N%C3%BA&ntilde;ez",
        "Zo&#37;C3&#37;AB O'Brien-Núñez",
        r'{"a": "Zo\u0026euml;\u0026nbsp;O&#39;Brien-N\u00fa&ntilde;ez"}',
        "Zo\u00adë O'Brien-\u200bNú\u2060ñez",
        repr("Zo\xeb O'Brien-N\xfa\xf1ez 'x\"").encode("ascii", "backslashreplace").decode(),
    ],
)
def test_a_text_is_found_however_it_is_written(text: str) -> None:
    assert NAME.is_in(text)
    assert NAME.is_in_bytes(text.encode())


def test_another_text_is_not_found() -> None:
    assert not NAME.is_in("Zoë Brien-Núñez")
    assert not Occurrence.of("C:\\new").is_in("C:\new".replace("\n", "\\m"))


def test_characters_that_are_not_seen_are_those_that_unicode_calls_formats() -> None:
    every = (chr(code) for code in range(sys.maxunicode + 1))
    assert folded("".join(one for one in every if unicodedata.category(one) == "Cf")) == ""


def test_what_looks_like_an_escape_itself_is_found() -> None:
    for text in ("R&amp;D %41", "+49 170 5550", "C:\\new\\table", "a+b%20c"):
        assert Occurrence.of(text).is_in(f"it says {text}, so")
        assert Occurrence.of(text).is_in(json.dumps({"it": text}))
        assert Occurrence.of(text).is_in(quote(text))
        assert Occurrence.of(text).is_in(html.escape(text))


def test_a_text_that_is_everywhere_is_refused() -> None:
    with pytest.raises(UsageError, match="too short"):
        Occurrence.of(" a  ")


@given(st.text(min_size=3).filter(lambda text: len(" ".join(text.split())) >= 3), st.text(), st.integers(0, 3))
def test_what_stands_in_json_in_json_is_found(text: str, around: str, deep: int) -> None:
    written = f"{around} {text} {around}"
    try:
        wanted = Occurrence.of(text)
    except UsageError:
        return
    for _ in range(deep):
        written = json.dumps(written)
    assert wanted.is_in(written)
