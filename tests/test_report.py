"""The report page: self-contained, honest, and safe to open whatever a model wrote."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import HOSTILE, bare_report, full_report, hostile_report

from corpusgen.evaluate.calibration import choose_calibration, reliability
from corpusgen.evaluate.gap import measure_gap
from corpusgen.evaluate.report import gather, verdict, wording
from corpusgen.evaluate.report.facts import (
    Aim,
    CalibrationCandidate,
    CalibrationChoice,
    Confusion,
    Estimate,
    Headline,
    LabelBalance,
    LearningCurve,
    Reliability,
    ReliabilityBin,
    RunReport,
)
from corpusgen.evaluate.report.page import render, sections
from corpusgen.evaluate.report.quality import class_scores
from corpusgen.evaluate.report.svg import share_scale

VOID = {"meta", "line", "rect", "circle", "path"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1", "h2", "h3"),
    *("p", "a", "b", "ul", "li", "dl", "dt", "dd", "div", "span", "figure", "figcaption", "details", "summary", "code"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "desc", "g", "text", "line", "rect", "circle", "path"),
}


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page; complains about tags that do not close in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.attributes if found == name]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(full_report()))


def test_the_page_needs_nothing_from_outside(page: Page) -> None:
    source = render(full_report())
    assert not re.search(r"https?:|//\w|url\(|@import|<link|<iframe|<object", source)
    assert {"src", "srcset", "action", "data", "poster"}.isdisjoint(name for name, _ in page.attributes)
    assert all(link.startswith("#") for link in page.values("href"))


def test_the_page_forbids_itself_everything_but_its_own_style() -> None:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in render(full_report())


def test_only_harmless_tags_and_no_handlers_appear(page: Page) -> None:
    assert page.tags <= ALLOWED
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    hostile = Page(render(hostile_report()))
    assert hostile.tags <= ALLOWED
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert hostile.text.count("<script>alert(1)</script><img src=x onerror=alert(2)>") > 40


def test_characters_that_hide_or_turn_text_are_made_visible() -> None:
    source = render(hostile_report())
    source.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)
    assert "⟨U+202E⟩" in source
    assert "⟨U+001B⟩" in source


def test_every_id_is_unique_and_every_reference_leads_somewhere(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = [name for value in page.values("aria-labelledby") for name in value.split()]
    assert {*wanted, *(link[1:] for link in page.values("href"))} <= set(ids)


def test_every_chart_says_what_it_shows() -> None:
    charts = re.findall(r"<svg.*?</svg>", render(full_report()))
    assert len(charts) >= 15
    assert all(
        re.search(r'role="img".*<title id="[^"]+">[^<]+</title><desc id="[^"]+">[^<]+', chart) for chart in charts
    )


def test_every_chart_has_its_numbers_in_a_table() -> None:
    for figure in re.findall(r"<figure>.*?</figure>", render(full_report())):
        assert "<table" in figure or "Against the caps" in figure


@pytest.mark.parametrize(
    "number",
    [
        *("86.9 %", "84.1 %", "85.1 %", "96.8 %", "94.9 % to 98.6 %", "85.5 %", "82.1 %", "33.4 %", "1 600", "1 490"),
        *(
            "212 ms",
            "0.0592 ms",
            "0.318 ms",
            "3 590 ×",
            "667 ×",
            "59.0",
            "$0.00066",
            "$2.36",
            "$71.64",
            "$0.040",
            "1 521",
        ),
        *("$0.312345", "$0.021007", "$0.0041", "$5.00", "531 412", "4 096", "1 024", "800 000", "3 398", "4 000"),
        *(
            "540 000",
            "760 000",
            "7 min 6 s",
            "+47 %",
            "12 480",
            "12 268",
            "10 731",
            "31.2 %",
            "2.1 %",
            "6.1 %",
            "0.210",
        ),
        *(
            "84.7 %",
            "86.3 %",
            "87.3 %",
            "499",
            "505",
            "−1.284",
            "14.6",
            "R09",
            "2004-01-01",
            "run-7f3a2c",
            "421",
            "152",
        ),
    ],
)
def test_every_number_is_on_the_page(page: Page, number: str) -> None:
    assert number in page.text.replace(wording.NARROW, " ")


@pytest.mark.parametrize(
    "name",
    [
        field.name
        for field in dataclasses.fields(RunReport)
        if field.name not in {"task", "description", "run_id", "finished", "wall_s", "limitations"}
    ],
)
def test_a_part_without_facts_is_left_out(name: str) -> None:
    whole, part = full_report(), dataclasses.replace(full_report(), **{name: None})  # type: ignore[arg-type]
    assert len(Page(render(part)).text) < len(Page(render(whole)).text)
    assert "None" not in Page(render(part)).text


def test_a_run_without_facts_is_a_page_without_sections() -> None:
    assert sections(bare_report()) == []
    assert "bare" in Page(render(bare_report())).text


def test_an_empty_tuple_counts_as_no_facts() -> None:
    empty = dataclasses.replace(bare_report(), funnel=(), drops=(), plan=(), confusions=(), reliability=())
    assert sections(empty) == []


def test_a_missed_aim_is_said_in_plain_words(page: Page) -> None:
    assert "1 of 5 aims was missed: Cost ratio at batch 64." in page.text
    assert "missed by 413" in page.text


def test_aims_that_were_all_met_are_said_to_be() -> None:
    assert verdict.verdict(
        (Aim(name="a", wanted=0.5, reached=0.5), Aim(name="b", wanted=9, reached=3, at_least=False))
    ) == ("All 2 aims were met.")


def test_an_aim_nobody_could_measure_is_missed() -> None:
    assert not Aim(name="a", wanted=0.5, reached=math.nan).met


def _headline(**changes: object) -> Headline:
    facts = full_report().headline
    assert facts
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def test_a_student_above_its_teacher_is_not_praised_without_a_warning() -> None:
    facts = _headline(retention=Estimate(value=1.08))
    assert verdict.headline(facts, None) == "The student is right at least as often as its teacher"
    assert "weakness of the teacher" in " ".join(verdict.warnings(facts))


def test_a_student_no_better_than_the_commonest_class_is_called_so() -> None:
    assert "no better" in " ".join(verdict.warnings(_headline(student=Estimate(value=0.33))))


def test_few_gold_items_are_a_warning() -> None:
    assert "are few" in " ".join(verdict.warnings(_headline(gold_items=80)))


@pytest.mark.parametrize(
    ("microusd", "shown"),
    [
        (0, "$0.00"),
        (658, "$0.00066"),
        (1, "$0.000001"),
        (312_345, "$0.31"),
        (71_640_000, "$71.64"),
        (2_000_000_000, "$2 000.00"),
    ],
)
def test_micro_dollars_are_shown_as_dollars(microusd: int, shown: str) -> None:
    assert wording.dollars(microusd).replace(wording.NARROW, " ") == shown


@given(st.integers(min_value=0, max_value=10**15))
def test_exact_dollars_lose_no_micro_dollar(microusd: int) -> None:
    whole, part = wording.exact_dollars(microusd).replace(wording.NARROW, "")[1:].split(".")
    assert int(whole) * 1_000_000 + int(part.ljust(6, "0")) == microusd


@given(st.text())
def test_escaped_text_is_read_back_as_it_was(value: str) -> None:
    assert Page(f"<p>{wording.text(value)}</p>").text == wording._UNSEEN.sub(
        lambda found: f"⟨U+{ord(found.group()):04X}⟩", value
    )


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=8))
def test_every_share_lies_on_its_axis(shares: list[float]) -> None:
    scale = share_scale(shares)
    assert scale.low < scale.high
    assert 1 <= len(scale.ticks) <= 8
    assert all(scale.low <= share <= scale.high for share in shares)


_share = st.floats(min_value=0, max_value=1) | st.just(math.nan)
_counts = st.integers(min_value=0, max_value=10**7)


@settings(max_examples=40, deadline=None)
@given(_share, _counts, st.integers(min_value=0, max_value=14))
def test_no_numbers_break_the_page(share: float, number: int, classes: int) -> None:
    labels = tuple(f"label-{at}" for at in range(classes))
    counts = tuple(tuple(number if gold == answered else 0 for answered in labels) for gold in labels)
    bin_ = ReliabilityBin(low=0, high=1, confidence=share, accuracy=share, count=number)
    report = dataclasses.replace(
        full_report(),
        headline=_headline(teacher=Estimate(value=share), retention=Estimate(value=share), gold_items=number),
        confusions=(Confusion(name="Teacher", role="teacher", labels=labels, counts=counts),),
        balance=LabelBalance(labels=labels, training=(number,) * classes, random_sample=(0,) * classes),
        reliability=(Reliability(name="Student", role="student", ece=share, bins=(bin_,)),),
        curve=LearningCurve(points=(), heldout_items=number),
        calibration=CalibrationChoice(
            candidates=(CalibrationCandidate(name="raw", accuracy=share, chosen=True),), validation_items=number
        ),
    )
    source = render(report)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', source)
    Page(source)


def test_a_gold_item_without_an_answer_was_not_found() -> None:
    facts = Confusion(name="T", role="teacher", labels=("a", "b"), counts=((6, 2), (0, 4)), items=(10, 4))
    assert class_scores(facts, 0) == (0.6, 1.0, 0.75)


def test_measurements_become_facts() -> None:
    gold, teacher, student = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, -1]), np.array([0, 0, 1, 0, 1])
    gap = measure_gap(gold=gold, teacher=teacher, student=student, labels=("x", "y"))
    facts = gather.headline(gap, teacher_name="T", student_name="S", labels_asked=9)
    assert (facts.teacher.value, facts.student.value, facts.unanswered, facts.gold_items) == (0.6, 0.8, 1, 5)
    assert [one.gold_items(1) for one in gather.confusions(gap)] == [3, 3]


def test_a_measured_calibration_becomes_facts() -> None:
    logprobs = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]))
    found = choose_calibration(logprobs, np.array([0, 1, 1]), logprobs)
    facts = gather.calibration_choice(found)
    assert [one.name for one in facts.candidates if one.chosen] == [found.chosen.kind]
    bins = gather.reliability("Teacher", "teacher", reliability(logprobs, np.array([0, 1, 1]))).bins
    assert sum(bin_.count for bin_ in bins) == 3


def test_the_same_facts_give_the_same_bytes() -> None:
    assert render(full_report()) == render(full_report())
    assert HOSTILE not in render(full_report())
