"""What every quality filter must do; a new filter is tested by being there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_samples import answer
from record_samples import records

from corpusgen.curation import filters
from corpusgen.curation.filter_table import BEGIN, END, table
from corpusgen.curation.filters import Filter
from corpusgen.curation.finding import PASSES
from corpusgen.records import Record

ROOT: Final = Path(__file__).parent.parent
NAMES: Final = filters.names()
LARGE: Final = 10_000_000
EDGES: Final = {
    "empty": "",
    "space": " \n\t\u00a0\u3000 ",
    "emoji": "😀👨‍👩‍👧 🇳🇿",
    "halves": "a\ud800b\udfff",
    "right to left": "مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם",
    "null": "a\0b",
    "open": "([{<```" * 50,
}
LARGE_ONES: Final = {
    "prose": "The cat sat on the mat, and it looked at twelve birds.\n" * (LARGE // 55),
    "a letter": "a" * LARGE,
    "spaces": " " * LARGE,
    "brackets": "[" * LARGE,
    "fences": "```a\n" * (LARGE // 5),
    "emoji": "😀" * (LARGE // 4),
    "halves": "\ud800" * (LARGE // 3),
    "Chinese": "我不能" * (LARGE // 9),
}


def example(name: str) -> Filter:
    (one,) = filters.load({name: filters.module_of(name).EXAMPLE})
    return one


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", EDGES.values(), ids=list(EDGES))
def test_a_filter_has_an_answer_to_every_text_and_always_the_same(name: str, text: str) -> None:
    group = [answer(text, prompt=text, token_logprobs=logprobs) for logprobs in (None, (None,), ())]
    first, second = example(name), example(name)
    assert first.on_answers(group) == second.on_answers(group)
    assert first.on_prompt(text) == second.on_prompt(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", LARGE_ONES.values(), ids=list(LARGE_ONES))
def test_ten_million_characters_are_no_trouble(name: str, text: str) -> None:
    one = example(name)
    group = [answer(text, prompt=text)] * (2 if one.needs == "group" else 1)
    assert len(one.on_answers(group)) == len(group)


@pytest.mark.parametrize("name", NAMES)
@given(group=st.lists(records(), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_filter_has_an_answer_to_every_record(name: str, group: list[Record]) -> None:
    one = example(name)
    found = one.on_answers(group)
    assert len(found) == len(group)
    for finding in filter(None, found):
        assert finding.check == name
        assert finding.reason
        assert orjson.dumps(asdict(finding))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_of_no_answers_at_all(name: str) -> None:
    assert example(name).on_answers([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_that_only_remarks_drops_nothing(name: str) -> None:
    module = filters.module_of(name)
    (one,) = filters.load({name: {**module.EXAMPLE, "action": "remark"}})
    group = [answer(text, finish_reason="refusal") for text in ("I can't help with that.", "a\ufffd (", "b " * 99)]
    assert all(finding is None or finding.kept for finding in one.on_answers(group))


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_describes_itself_and_each_of_its_settings(name: str) -> None:
    module = filters.module_of(name)
    assert module.__doc__
    assert module.SUMMARY
    assert all(field.description for field in module.Settings.model_fields.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_has_a_test_of_its_own(name: str) -> None:
    assert (ROOT / "tests" / f"test_quality_{name}.py").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_calls_of_tools_are_no_text_to_be_judged(name: str) -> None:
    one = example(name)
    if one.needs != "group":
        assert one.on_answers([answer(" ", tool_calls="[]")]) == [None]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_filter_finds_does_not_hang_on_the_order_of_answers(name: str) -> None:
    one = example(name)
    group = [answer(text) for text in ("It is 7.", "It is 8.", "I think that it is 7.", "I can't help with that.")]
    assert one.on_answers(group[::-1]) == one.on_answers(group)[::-1]


def test_a_pass_is_told_from_a_remark() -> None:
    (one,) = filters.load({"length": {"min_words": 1}})
    (found,) = one.on_answers([answer("Fine.")])
    assert found is not None
    assert found.reason == PASSES


def test_the_docs_have_the_table_of_all_filters_and_settings() -> None:
    text = (ROOT / "docs" / "curation.md").read_text(encoding="utf-8")
    printed = text.partition(BEGIN)[2].partition(END)[0]
    assert printed.strip() == table().strip()
