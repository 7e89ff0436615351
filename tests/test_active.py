from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation.active import Candidates, Ground, choose_round, first_round, margins, next_round

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


BOTH: tuple[Ground, ...] = ("uncertainty", "diversity")


def candidates(ids: list[str] = IDS, seed: int = 0) -> Candidates:
    """Fifty items in five places, ten at each."""
    places = np.repeat(np.eye(5, 6), 10, axis=0) + np.random.default_rng(seed).normal(0, 0.02, (50, 6))
    points = (places / np.linalg.norm(places, axis=1, keepdims=True)).astype(np.float32)
    return Candidates(ids=ids, log_probabilities=scores(seed=seed), points=points)


def shuffled(found: Candidates, seed: int) -> Candidates:
    order = np.random.default_rng(seed).permutation(len(found.ids))
    return Candidates(
        ids=[found.ids[at] for at in order],
        log_probabilities=found.log_probabilities[order],
        points=found.points[order],
    )


def test_a_round_by_both_asks_in_every_place_and_there_what_is_least_certain() -> None:
    found = candidates()
    chosen = choose_round(found, by=BOTH, count=5, spread=10, seed=1)
    gaps = margins(found.log_probabilities)
    assert sorted(at // 10 for at in chosen) == [0, 1, 2, 3, 4]
    assert all(gaps[at] == gaps[at // 10 * 10 : at // 10 * 10 + 10].min() for at in chosen)


def test_a_round_by_both_asks_nothing_the_student_is_sure_of() -> None:
    found = candidates()
    wavering = set(np.argsort(margins(found.log_probabilities))[:15].tolist())
    assert set(choose_round(found, by=BOTH, count=5, spread=3, seed=1)) <= wavering


def test_a_round_by_uncertainty_alone_takes_the_smallest_margins() -> None:
    found = candidates()
    chosen = choose_round(found, by=("uncertainty",), count=7, seed=1)
    assert chosen == np.argsort(margins(found.log_probabilities))[:7].tolist()


def test_a_round_by_diversity_alone_stays_away_from_what_was_asked() -> None:
    found = candidates()
    chosen = choose_round(found, by=("diversity",), count=3, seed=1, asked=found.points[:20])
    assert {at // 10 for at in chosen} == {2, 3, 4}


@pytest.mark.parametrize("by", [BOTH, ("uncertainty",), ("diversity",)])
@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_rows_decides_nothing(by: tuple[Ground, ...], seed: int) -> None:
    found = candidates()
    other = shuffled(found, seed)
    first, second = (choose_round(one, by=by, count=12, seed=1) for one in (found, other))
    assert {found.ids[at] for at in first} == {other.ids[at] for at in second}


def test_equally_uncertain_items_are_drawn_by_lot() -> None:
    alike = Candidates(ids=IDS, log_probabilities=np.log(np.full((50, 4), 0.25)), points=candidates().points)
    one, two = (set(choose_round(alike, by=("uncertainty",), count=10, seed=seed)) for seed in (1, 2))
    assert one != two != set(range(10))


def test_where_all_lie_at_one_place_the_least_certain_are_asked() -> None:
    found = candidates()
    at_one = Candidates(ids=IDS, log_probabilities=found.log_probabilities, points=np.tile(found.points[:1], (50, 1)))
    chosen = choose_round(at_one, by=BOTH, count=6, seed=1)
    assert chosen == np.argsort(margins(found.log_probabilities))[:6].tolist()


def test_what_cannot_be_chosen_by_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="name one or both"):
        choose_round(candidates(), by=(), count=3, seed=1)
    with pytest.raises(ValueError, match="from 1 to 100"):
        choose_round(candidates(), by=BOTH, count=3, spread=0.5, seed=1)
    with pytest.raises(ValueError, match="49 ids for 50 rows of log-probabilities"):
        candidates(IDS[1:])


@given(
    by=st.sampled_from([BOTH, ("uncertainty",), ("diversity",)]),
    count=st.integers(0, 60),
    spread=st.floats(1, 20),
    seed=st.integers(0, 3),
)
def test_a_round_has_its_size_and_no_item_twice(by: tuple[Ground, ...], count: int, spread: float, seed: int) -> None:
    chosen = choose_round(candidates(), by=by, count=count, spread=spread, seed=seed)
    assert len(chosen) == len(set(chosen)) == min(count, len(IDS))
