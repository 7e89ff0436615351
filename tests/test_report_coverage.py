"""The section on coverage: it says what was left out, and holds whatever it is given."""

from __future__ import annotations

import dataclasses
import math
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_samples import bare_report, coverage
from vector_samples import clustered_pool

from corpusgen.curation import coverage as measured
from corpusgen.evaluate.report import gather
from corpusgen.evaluate.report.facts import Coverage, CoverageHole, Spots
from corpusgen.evaluate.report.page import render


def shown(facts: Coverage) -> str:
    return render(dataclasses.replace(bare_report(), coverage=facts))


def test_every_hole_has_a_ring_a_number_and_its_words() -> None:
    source = shown(coverage())
    wide = source[source.index('class="wide"') : source.index('class="narrow"')]
    assert wide.count('class="hole"') == 3  # two holes and the legend's sign
    assert "1: verdict, judge, appeal, court" in source
    assert "1: verdict judge appeal court, 0 of 391 items chosen" in source
    assert "1 smaller one is not listed" in source


def test_a_pool_that_was_reached_everywhere_says_so() -> None:
    source = shown(dataclasses.replace(coverage(), holes=(), more_holes=0))
    assert "No part of the pool left out" in source
    assert 'class="hole"' not in source
    assert "What was left out" not in source


def test_the_legend_names_only_what_is_there() -> None:
    source = shown(dataclasses.replace(coverage(), dropped_at=(), held_out_at=()))
    assert "dropped before" not in source
    assert ">not chosen<" in source


def test_the_map_of_three_thousand_items_is_small() -> None:
    assert len(shown(coverage()).encode()) < 150_000


_number = st.floats(allow_nan=True, allow_infinity=True)
_spots = st.lists(st.tuples(_number, _number), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(_spots, _spots, _number, _number)
@example((), (), 1e308, 0.5)
@example(((1e308, 1e308), (-1e308, -1e308)), (), 0.0, 0.5)
def test_no_numbers_break_the_map(chosen: Spots, dropped: Spots, where: float, share: float) -> None:
    hole = CoverageHole(words=(), items=0, chosen=0, x=where, y=where, reach=where)
    none = dataclasses.replace(coverage().chosen, vendi=where, mean_nearest=math.nan, distinct=None)
    facts = dataclasses.replace(
        coverage(), chosen=none, explained=share, chosen_at=chosen, dropped_at=dropped, passed_over_at=(), holes=(hole,)
    )
    assert not re.search(r'="[^"]*\b(nan|inf)\b', shown(facts))


def test_what_was_measured_becomes_facts() -> None:
    rows = clustered_pool(60, dim=8)
    counts: dict[measured.State, int] = {"chosen": 10, "passed_over": 40, "dropped": 6, "held_out": 4}
    states = [state for state, count in counts.items() for _ in range(count)]
    names = [f"item {at}" for at in range(60)]
    found = gather.coverage(measured.coverage(rows, states, names, names, strata=["a"] * 60, embedder="made up"))
    assert (found.chosen.items, found.passed_over, found.dropped, found.held_out) == (10, 40, 6, 4)
    assert (len(found.chosen_at), len(found.dropped_at)) == (10, 6)
    assert [(one.name, one.pool, one.chosen) for one in found.strata] == [("a", 50, 10)]
    assert "compared by made up" in shown(found)
