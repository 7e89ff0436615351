from __future__ import annotations

import math
from typing import Any

import pytest
from quality_samples import answer, said
from record_samples import sample_record

MEAN: dict[str, Any] = {"min_mean_logprob": -1.0}
MARGIN: dict[str, Any] = {"min_margin": 0.2}


@pytest.mark.parametrize(
    ("logprobs", "score", "kept"),
    [
        ((-0.5, -1.0), -0.75, True),
        ((-0.5, None, -2.5), -1.5, False),
        ((-1.0,), -1.0, True),
        ((-0.1, -math.inf), -math.inf, False),
        ((-0.5, math.nan), -0.5, True),
    ],
)
def test_the_mean_is_over_the_tokens_that_have_a_log_probability(
    logprobs: tuple[float | None, ...], score: float, kept: bool
) -> None:
    found = said("confidence", answer("x", token_logprobs=logprobs), **MEAN)
    assert found is not None
    assert (found.score, found.kept, found.threshold) == (score, kept, -1.0)


@pytest.mark.parametrize("logprobs", [None, (), (None,), (math.nan,)])
def test_without_log_probabilities_there_is_a_remark_and_no_verdict(logprobs: tuple[float | None, ...] | None) -> None:
    found = said("confidence", answer("x", token_logprobs=logprobs), **MEAN)
    assert found is not None
    assert (found.kept, found.score, found.reason) == (True, None, "the teacher gave no log-probabilities")


def test_a_label_is_judged_by_its_margin() -> None:
    sure = sample_record(label_logprobs=(math.log(0.7), math.log(0.3)))
    unsure = sample_record(label_logprobs=(math.log(0.55), math.log(0.45)))
    kept, dropped = (said("confidence", record, **MARGIN) for record in (sure, unsure))
    assert kept is not None
    assert dropped is not None
    assert kept.score == pytest.approx(0.4)
    assert (kept.kept, dropped.kept, dropped.reason) == (True, False, "not sure of its label")


def test_calibrated_probabilities_count_where_there_are_any() -> None:
    record = sample_record(label_logprobs=(-0.01, -9.0), calibrated_logprobs=(math.log(0.5), math.log(0.5)))
    found = said("confidence", record, **MARGIN)
    assert found is not None
    assert (found.kept, found.score) == (False, 0.0)


def test_a_label_without_a_margin_is_judged_by_its_tokens_and_an_answer_is_never_by_a_margin() -> None:
    assert said("confidence", sample_record(token_logprobs=(-3.0,)), **MEAN) is not None
    assert said("confidence", answer("x"), **MARGIN) is None
