from __future__ import annotations

import math

import pytest
from quality_samples import answer, made, said

from corpusgen.curation.filters import judged
from corpusgen.records import Verdict


def test_a_score_given_by_a_judge_is_held_against_the_least() -> None:
    scores = {"good": 4.0, "poor": 2.0, "just": 3.0}
    group = [judged(answer("x", record_id=name), scores) for name in ("good", "poor", "just", "unknown")]
    found = made("judge", min_score=3.0).on_answers(group)
    assert [one and (one.kept, one.score) for one in found] == [(True, 4.0), (False, 2.0), (True, 3.0), (True, None)]


def test_an_answer_nobody_has_judged_is_kept_unless_told_otherwise() -> None:
    kept, dropped = (said("judge", answer("x"), min_score=1.0, unscored=what) for what in ("keep", "drop"))
    assert kept is not None
    assert dropped is not None
    assert (kept.kept, dropped.kept, dropped.reason) == (True, False, "no judge has given a score")


def test_the_last_score_of_the_named_verdict_counts() -> None:
    verdicts = tuple(
        Verdict(check=name, kept=True, score=score) for name, score in (("judge", 1.0), ("judge", 5.0), ("x", 0.0))
    )
    found, other = (
        said("judge", answer("x", verdicts=verdicts), min_score=3.0, verdict=name) for name in ("judge", "x")
    )
    assert found is not None
    assert other is not None
    assert (found.score, other.score, other.kept) == (5.0, 0.0, False)


@pytest.mark.parametrize("score", [None, math.nan])
def test_a_verdict_without_a_score_is_none(score: float | None) -> None:
    record = answer("x", verdicts=(Verdict(check="judge", kept=True, score=score),))
    found = said("judge", record, min_score=3.0)
    assert found is not None
    assert found.reason == "no judge has given a score"


def test_a_record_keeps_its_other_verdicts() -> None:
    record = answer("x", record_id="a")
    assert judged(record, {"a": 2.5}).verdicts == (*record.verdicts, Verdict(check="judge", kept=True, score=2.5))
    assert judged(record, {}) is record
