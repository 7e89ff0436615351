from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_samples import clustered_pool

from corpusgen.curation import coverage as module
from corpusgen.curation.coverage import Coverage, State, coverage
from corpusgen.curation.lexical import learnt
from corpusgen.curation.spread import mean_nearest, radius, vendi, wording

TOPICS = {
    "kitchen": ["bake", "bread", "oven", "flour", "sugar", "butter", "recipe", "cake"],
    "sea": ["ship", "harbour", "sail", "captain", "wave", "storm", "anchor"],
    "court": ["judge", "lawyer", "verdict", "appeal", "witness", "crime", "trial"],
    "orbit": ["rocket", "planet", "orbit", "moon", "astronaut", "launch", "engine"],
}
PLAIN = ["the", "a", "of", "in", "we", "how", "why", "is", "about"]


def covered(chosen: dict[str, int], each: int = 60) -> tuple[Coverage, list[str]]:
    """Coverage of a pool of four topics, of which so many were chosen."""
    draw = random.Random(0)
    names = [name for name in TOPICS for _ in range(each)]
    texts = [" ".join(draw.choices(TOPICS[name], k=5) + draw.choices(PLAIN, k=3)) for name in names]
    ids = [f"{name}-{at}" for at, name in enumerate(names)]
    states: list[State] = []
    for name in TOPICS:
        states.extend("chosen" if at < chosen.get(name, 0) else "passed_over" for at in range(each))
    vectors = learnt(texts, dim=16).embed(texts)
    return coverage(vectors, states, ids, texts, strata=names, clusters=4), texts


def test_a_part_of_the_pool_without_chosen_items_is_a_hole_and_told_by_its_words() -> None:
    found, _ = covered({"kitchen": 20, "sea": 20, "orbit": 20})
    (hole,) = found.holes
    assert set(hole.words) <= set(TOPICS["court"])
    assert (hole.items, hole.chosen) == (60, 0)
    assert all(name.startswith("court-") for name in hole.examples)
    assert (found.clusters, found.chosen.clusters_hit) == (4, 3)


def test_a_part_that_was_chosen_from_far_too_little_is_a_hole_too() -> None:
    found, _ = covered({"kitchen": 30, "sea": 30, "orbit": 30, "court": 2})
    assert [(hole.items, hole.chosen) for hole in found.holes] == [(60, 2)]


def test_an_even_choice_has_no_holes() -> None:
    found, _ = covered(dict.fromkeys(TOPICS, 15))
    assert found.holes == ()
    assert found.chosen.clusters_hit == found.clusters


def test_strata_are_counted_in_the_pool_and_among_the_chosen() -> None:
    found, _ = covered({"kitchen": 20, "court": 1})
    assert {(one.name, one.pool, one.chosen) for one in found.strata} == {
        ("kitchen", 60, 20), ("sea", 60, 0), ("court", 60, 1), ("orbit", 60, 0)
    }  # fmt: skip


def test_the_chosen_are_compared_with_as_many_at_random() -> None:
    found, _ = covered({"kitchen": 40})
    assert found.chosen.items == found.random.items == 40
    assert found.chosen.vendi < found.random.vendi
    assert found.chosen.radius > found.random.radius


def test_the_order_of_the_items_makes_no_difference() -> None:
    rows = clustered_pool(300, dim=16)
    ids = [f"i{at}" for at in range(300)]
    states: list[State] = [
        "chosen" if at % 9 == 0 else "dropped" if at % 9 == 1 else "passed_over" for at in range(300)
    ]
    mixed = np.random.default_rng(0).permutation(300)
    one = coverage(rows, states, ids, ids)
    assert one == coverage(
        rows[mixed], [states[at] for at in mixed], [ids[at] for at in mixed], [ids[at] for at in mixed]
    )


def test_a_map_is_bounded_and_shows_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPOTS", 200)
    monkeypatch.setattr(module, "LEAST_SPOTS", 20)
    rows = clustered_pool(2_000, dim=16)
    counts: dict[State, int] = {"dropped": 10, "held_out": 90, "chosen": 100, "passed_over": 1_800}
    states = [state for state, count in counts.items() for _ in range(count)]
    found = coverage(rows, states, [str(at) for at in range(2_000)], ["x"] * 2_000)
    shown = {state: sum(spot.state == state for spot in found.spots) for state in module.STATES}
    assert len(found.spots) <= 200
    assert (shown["dropped"], shown["held_out"], shown["chosen"]) == (10, 20, 66)
    assert found.counts == counts


def test_the_map_lays_apart_what_differs_most() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = coverage(rows, ["passed_over"] * 30, [str(at) for at in range(30)], ["x"] * 30)
    assert len({(spot.x, spot.y) for spot in found.spots}) == 3
    assert found.explained == pytest.approx(1)


@pytest.mark.parametrize("states", [[], ["dropped"], ["held_out"] * 2, ["chosen"], ["passed_over"] * 3])
def test_few_items_have_a_coverage_too(states: list[State]) -> None:
    rows = np.eye(4, dtype=np.float32)[: len(states)]
    found = coverage(rows, states, [str(at) for at in range(len(states))], ["one text"] * len(states))
    assert len(found.spots) == len(states)
    assert found.chosen.items == states.count("chosen")


def test_one_number_a_row_is_a_line() -> None:
    found = coverage(np.array([[1.0], [-1.0]]), ["chosen", "passed_over"], ["a", "b"], ["a", "b"])
    assert {spot.y for spot in found.spots} == {0.0}


@pytest.mark.parametrize(
    ("states", "ids", "said"),
    [(["chosen"], ["a", "b"], "1 states for 2 rows"), (["kept", "chosen"], ["a", "b"], "'kept'")],
)
def test_what_does_not_fit_is_refused(states: list[State], ids: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coverage(np.eye(2), states, ids, ["x", "y"])


def test_vendi_counts_different_texts() -> None:
    eye = np.eye(6, dtype=np.float32)
    assert vendi(eye) == pytest.approx(6)
    assert vendi(np.repeat(eye[:2], 9, axis=0)) == pytest.approx(2)
    assert vendi(eye[:0]) == 0


@given(
    st.integers(min_value=1, max_value=30),
    st.integers(min_value=1, max_value=30),
    st.integers(min_value=0, max_value=9),
)
def test_vendi_is_the_same_of_either_matrix(rows: int, dim: int, seed: int) -> None:
    found = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    wider = np.concatenate([found, np.zeros((rows, 40), np.float32)], axis=1)
    assert vendi(found) == pytest.approx(vendi(wider), rel=1e-5)


def test_distances_of_texts() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert mean_nearest(rows) == pytest.approx(math.sqrt(2))
    assert radius(rows, rows[:1]) == pytest.approx(math.sqrt(2))
    assert radius(rows, rows) == pytest.approx(0, abs=1e-3)
    assert math.isnan(mean_nearest(rows[:1]))
    assert math.isnan(radius(rows, rows[:0]))


def test_texts_that_repeat_each_other_are_found_out() -> None:
    same = wording(["the cat sleeps under the tree"] * 50)
    other = wording([f"{a} meets {b} near {a}{b}" for a in "abcdefgh" for b in "stuvwx"])
    assert (same.self_repetition, other.self_repetition) == (1, 0)
    assert same.distinct is not None
    assert other.distinct is not None
    assert same.distinct == pytest.approx(5 / 250)
    assert other.distinct > 10 * same.distinct
    assert (same.compression or 0) > 2 * (other.compression or 0)


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["\ud800"]])
def test_no_words_have_no_figures(texts: list[str]) -> None:
    found = wording(texts)
    assert found.distinct is None
    assert found.self_repetition is None
