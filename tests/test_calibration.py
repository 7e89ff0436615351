from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.evaluate.calibration import (
    Calibration,
    accuracy,
    at_temperature,
    choose_calibration,
    fit_temperature,
    normalise,
    pool_mean,
    reliability,
)

NAN = float("nan")


def teacher(
    items: int = 600, bias: tuple[float, ...] = (0.0, 3.0, 0.0), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Raw log-probabilities of a teacher that favours some labels, and the truth."""
    draw = np.random.default_rng(seed)
    gold = draw.choice(3, size=items, p=(0.6, 0.3, 0.1))
    return normalise(draw.normal(size=(items, 3)) + 2.5 * np.eye(3)[gold] + bias), gold


def test_raw_calibration_changes_nothing() -> None:
    logprobs, _ = teacher()
    assert np.allclose(Calibration(kind="raw", vector=(0.0, 0.0, 0.0)).apply(logprobs), logprobs)


def test_batch_calibration_makes_labels_equally_likely_on_average() -> None:
    logprobs, _ = teacher()
    applied = logprobs - pool_mean(logprobs)
    assert np.allclose(applied.mean(axis=0), applied.mean())


def test_a_biased_teacher_is_calibrated_and_the_uneven_pool_stays_uneven() -> None:
    logprobs, gold = teacher()
    pool, _ = teacher(seed=1)
    choice = choose_calibration(logprobs, gold, pool)
    assert choice.chosen.kind == "prior"
    assert 0.0 < choice.strength < 1.0
    assert choice.accuracies["prior"] > max(choice.accuracies["raw"], choice.accuracies["batch"])


def test_a_missing_label_gets_no_probability_and_a_missing_row_stays_missing() -> None:
    applied = Calibration(kind="batch", vector=(-1.0, -2.0)).apply(np.array([[-1.0, NAN], [NAN, NAN]]))
    assert applied[0].tolist() == [0.0, -np.inf]
    assert np.isnan(applied[1]).all()


def test_a_missing_row_is_a_wrong_answer() -> None:
    assert accuracy(np.array([[NAN, NAN], [0.0, -np.inf]]), np.array([0, 0])) == 0.5


def test_missing_values_do_not_spoil_the_calibration() -> None:
    logprobs, gold = teacher()
    logprobs[::10, 2] = NAN
    choice = choose_calibration(logprobs, gold, logprobs)
    assert np.isfinite(choice.chosen.vector).all()


def test_temperature_finds_its_way_back() -> None:
    logprobs, gold = teacher(items=4000, bias=(0.0, 0.0, 0.0))
    honest = at_temperature(logprobs, fit_temperature(logprobs, gold))
    assert fit_temperature(at_temperature(honest, 0.5), gold) == pytest.approx(2.0, rel=0.1)
    assert reliability(honest, gold).ece < reliability(at_temperature(honest, 0.25), gold).ece


def test_a_choice_applies_calibration_and_temperature() -> None:
    logprobs, gold = teacher()
    choice = choose_calibration(logprobs, gold, logprobs)
    believed = choice.chosen.apply(logprobs)
    plain = choice.candidates[choice.chosen.kind].apply(logprobs)
    assert np.array_equal(believed.argmax(axis=1), plain.argmax(axis=1))
    assert fit_temperature(believed, gold) == pytest.approx(1.0, rel=0.06)


def test_reliability_of_a_sure_and_right_teacher_is_perfect() -> None:
    logprobs = normalise(np.array([[0.0, -np.inf], [-np.inf, 0.0]]))
    found = reliability(logprobs, np.array([0, 1]))
    assert (found.ece, found.brier) == (0.0, 0.0)
    assert [one.items for one in found.bins] == [0] * 9 + [2]


@given(st.lists(st.lists(st.floats(-50, 0), min_size=3, max_size=3), min_size=1, max_size=20))
def test_applied_log_probabilities_sum_to_one(rows: list[list[float]]) -> None:
    applied = Calibration(kind="prior", vector=(-1.0, 0.0, 2.0)).apply(np.array(rows))
    assert np.allclose(np.exp(applied).sum(axis=1), 1.0)
