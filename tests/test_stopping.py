"""When asking stops: a flat curve promises nothing, a rising one does, and few points promise neither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.curation.stopping import Expected, Point, expected_gain, worth_it

LABELS = range(400, 2_400, 275)


def curve(end: float, distance: float, bend: float, *, noise: float = 0.0, seed: int = 0) -> list[Point]:
    shaken = np.random.default_rng(seed).normal(0, noise or 1e-12, len(LABELS))
    levels = [end - distance * (labels / LABELS[0]) ** -bend for labels in LABELS]
    return [
        Point(labels=labels, agreement=float(level + shake), items=300, changed=12 if noise else 0)
        for labels, level, shake in zip(LABELS, levels, shaken, strict=True)
    ]


def expectations(points: list[Point]) -> list[Expected | None]:
    return [expected_gain(points[:count], 275) for count in range(1, len(points) + 1)]


def test_nothing_is_expected_of_fewer_than_three_points() -> None:
    assert expectations(curve(0.9, 0.2, 0.8))[:3].count(None) == 2


@pytest.mark.parametrize("bend", [0.3, 0.8, 1.4])
def test_the_gain_of_a_curve_without_noise_is_found(bend: float) -> None:
    truth = 0.2 * ((LABELS[-1] / 400) ** -bend - ((LABELS[-1] + 275) / 400) ** -bend)
    found = expected_gain(curve(0.95, 0.2, bend), 275)
    assert found is not None
    assert found.gain == pytest.approx(truth, rel=0.15)


def test_a_flat_curve_is_not_worth_another_round() -> None:
    expected = expectations(curve(0.9, 0.0, 1.0, noise=0.003))
    assert not worth_it(expected, below=0.002, patience=2)


@pytest.mark.parametrize("seed", range(5))
def test_a_rising_curve_is_worth_another_round_every_time(seed: int) -> None:
    expected = expectations(curve(0.98, 0.3, 0.5, noise=0.006, seed=seed))
    assert all(worth_it(expected[:count], below=0.002, patience=2) for count in range(1, len(expected) + 1))


def test_more_luck_with_the_items_does_not_change_what_is_expected() -> None:
    low, high = (expected_gain(curve(end, 0.2, 0.8, noise=0.003), 275) for end in (0.80, 0.90))
    assert low is not None
    assert high is not None
    assert low.gain == pytest.approx(high.gain, rel=0.1)


def test_one_round_that_promises_enough_begins_the_waiting_anew() -> None:
    little, much = (Expected(block=10, gain=gain, low=0, high=gain) for gain in (0.001, 0.01))
    assert worth_it([little, much, little], below=0.002, patience=2)
    assert not worth_it([much, little, little], below=0.002, patience=2)
    assert worth_it([little], below=0.002, patience=2)
    assert worth_it([None, little], below=0.002, patience=2)


def test_a_threshold_of_nothing_never_stops() -> None:
    assert worth_it([Expected(block=10, gain=0.0, low=0, high=0)] * 9, below=0, patience=1)


def test_values_out_of_range_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        worth_it([], below=2, patience=1)
    with pytest.raises(ValueError, match="at least 1"):
        worth_it([], below=0.1, patience=0)
    with pytest.raises(ValueError, match="at least 1 label"):
        expected_gain(curve(0.9, 0.2, 0.8), 0)
    with pytest.raises(ValueError, match="ever more labels"):
        expected_gain(curve(0.9, 0.2, 0.8)[::-1], 275)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40)), min_size=3, max_size=12), st.integers(1, 5_000))
def test_what_is_expected_is_a_share_within_its_interval(found: list[tuple[float, int]], block: int) -> None:
    points = [
        Point(labels=10 + 7 * at, agreement=level, items=40, changed=changed)
        for at, (level, changed) in enumerate(found)
    ]
    expected = expected_gain(points, block)
    assert expected is not None
    assert 0 <= expected.low <= expected.high <= 1
    assert 0 <= expected.gain <= 1
