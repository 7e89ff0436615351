from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation.active import first_round, margins, next_round

IDS = [f"item-{number}" for number in range(50)]


def scores(count: int = 50, seed: int = 0) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(4), size=count))


def test_first_round_does_not_depend_on_the_order_of_the_items() -> None:
    backwards = IDS[::-1]
    chosen = {IDS[at] for at in first_round(IDS, count=10, seed=3)}
    assert chosen == {backwards[at] for at in first_round(backwards, count=10, seed=3)}


def test_another_seed_draws_other_items() -> None:
    assert first_round(IDS, count=10, seed=1) != first_round(IDS, count=10, seed=2)


def test_first_round_asks_everything_when_there_is_less_than_wanted() -> None:
    assert sorted(first_round(IDS[:3], count=10, seed=1)) == [0, 1, 2]


def test_next_round_takes_the_smallest_margins_first() -> None:
    log_probabilities = scores()
    chosen = next_round(log_probabilities, IDS, count=8, seed=1)
    assert chosen == np.argsort(margins(log_probabilities), kind="stable")[:8].tolist()


def test_spread_draws_from_a_wider_but_still_uncertain_set() -> None:
    log_probabilities = scores()
    chosen = next_round(log_probabilities, IDS, count=8, spread=3.0, seed=1)
    wavering = set(np.argsort(margins(log_probabilities), kind="stable")[:24].tolist())
    assert len(chosen) == 8
    assert set(chosen) <= wavering
    assert chosen == next_round(log_probabilities, IDS, count=8, spread=3.0, seed=1)


def test_an_impossible_label_counts_as_no_probability() -> None:
    assert margins(np.array([[0.0, -np.inf, -np.inf]])).tolist() == [1.0]


def test_ids_and_scores_must_belong_together() -> None:
    with pytest.raises(ValueError, match="49 ids for 50 rows"):
        next_round(scores(), IDS[1:], count=3, seed=1)


@given(count=st.integers(0, 60), spread=st.floats(1.0, 4.0), seed=st.integers(0, 5))
def test_a_round_never_repeats_an_item_nor_exceeds_its_size(count: int, spread: float, seed: int) -> None:
    chosen = next_round(scores(seed=seed), IDS, count=count, spread=spread, seed=seed)
    assert len(chosen) == len(set(chosen)) == min(count, len(IDS))
