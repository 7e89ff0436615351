from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_samples import clustered_pool

from corpusgen.curation.diverse import Method, choose, pool_of
from corpusgen.curation.embed import Vectors
from corpusgen.curation.quotas import counts, level
from corpusgen.curation.spread import radius, vendi

METHODS: list[Method] = ["k_center", "facility", "clusters"]


def by_hand(rows: Vectors, order: list[int], k: int, weights: list[float], most: dict[str, int], of: str) -> list[int]:
    """k-center greedy as the paper has it, with weights and allowances; ``order`` decides between equals."""
    found: list[int] = []
    while len(found) < k:
        nearest = (rows @ rows[found].T).max(axis=1) if found else np.full(len(rows), -1)
        full = {value for value, count in most.items() if sum(of[at] == value for at in found) >= count}
        left = [at for at in order if at not in found]
        allowed = [at for at in left if of[at] not in full] or left
        found.append(max(allowed, key=lambda at: weights[at] * np.sqrt(max(0, 2 - 2 * nearest[at]))))
    return found


def rows_of(rows: Vectors, positions: tuple[int, ...]) -> set[bytes]:
    return {rows[at].tobytes() for at in positions}


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=25), st.booleans(), st.booleans())
def test_k_center_takes_the_farthest_each_time(seed: int, k: int, weighted: bool, limited: bool) -> None:
    draw = np.random.default_rng(seed)
    rows, ids = clustered_pool(60, dim=8, seed=seed % 1000), [str(at) for at in range(60)]
    weights = draw.choice([0.5, 1.0, 3.0], size=60).tolist() if weighted else [1.0] * 60
    of = "".join(draw.choice(list("aabc"), size=60))
    most = {"b": k // 3, "c": 1} if limited and k >= 3 else {}
    order = list(choose(rows, 60, seed=seed, ids=ids, weights=weights).positions)
    found = choose(rows, k, seed=seed, ids=ids, weights=weights, strata=of, quotas=most)
    whole = most | {"a": k - sum(most.values())} if most else {}
    assert list(found.positions) == by_hand(rows, order, k, weights, whole, of)


def test_the_radius_is_what_the_farthest_is_from_the_chosen() -> None:
    rows = clustered_pool(500)
    found = choose(rows, 60, seed=3)
    assert list(found.radius) == sorted(found.radius, reverse=True)
    assert found.radius[-1] == pytest.approx(radius(rows, rows[list(found.positions)]), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_items_makes_no_difference(method: Method) -> None:
    rows = clustered_pool(400)
    mixed = np.random.default_rng(1).permutation(len(rows))
    one, other = choose(rows, 40, seed=5, method=method), choose(rows[mixed], 40, seed=5, method=method)
    assert list(one.positions) == mixed[list(other.positions)].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method: Method) -> None:
    rows = clustered_pool(400)
    assert choose(rows, 20, seed=1, method=method) == choose(rows, 20, seed=1, method=method)
    assert choose(rows, 20, seed=1, method=method) != choose(rows, 20, seed=2, method=method)


def test_equal_items_are_told_apart_by_their_ids_and_not_by_their_order() -> None:
    rows = np.repeat(clustered_pool(30), 4, axis=0)
    ids = [f"item-{at}" for at in range(len(rows))]
    mixed = np.random.default_rng(1).permutation(len(rows))
    one = choose(rows, 50, seed=5, ids=ids)
    other = choose(rows[mixed], 50, seed=5, ids=[ids[at] for at in mixed])
    assert [ids[at] for at in one.positions] == [ids[mixed[at]] for at in other.positions]


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(min_value=0, max_value=40), st.integers(min_value=0, max_value=50), st.integers(min_value=0))
@settings(max_examples=25, deadline=None)
def test_no_item_is_chosen_twice_and_as_many_as_there_are(method: Method, n: int, k: int, seed: int) -> None:
    rows = np.repeat(clustered_pool(max(1, (n + 1) // 2)), 2, axis=0)[:n]
    found = choose(rows, k, seed=seed, method=method).positions
    assert len(found) == len(set(found)) == min(n, k)
    assert all(0 <= at < n for at in found)


def test_more_wanted_than_there_are_takes_all_and_says_so() -> None:
    found = choose(clustered_pool(7), 9, seed=1)
    assert sorted(found.positions) == list(range(7))
    assert found.remarks == ("9 were wanted and there are 7: all were taken",)


def test_none_wanted_or_none_there_is_an_empty_choice() -> None:
    assert choose(clustered_pool(7), 0, seed=1).positions == ()
    assert choose(np.empty((0, 4), np.float32), 3, seed=1).remarks == ("3 were wanted of an empty pool",)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_is_not_chosen_again(method: Method) -> None:
    rows = clustered_pool(300)
    first = choose(rows, 30, seed=1, method=method).positions
    second = choose(rows, 30, seed=1, kept=rows[list(first)], method=method).positions
    assert set(first).isdisjoint(second)


def test_choosing_on_from_what_is_kept_is_choosing_at_once() -> None:
    rows = clustered_pool(300)
    whole = choose(rows, 40, seed=1).positions
    assert choose(rows, 15, seed=1, kept=rows[list(whole[:25])]).positions == whole[25:]


def test_copies_are_chosen_last_and_said_to_be() -> None:
    rows = np.repeat(clustered_pool(10), 3, axis=0)
    found = choose(rows, 12, seed=1)
    assert len(rows_of(rows, found.positions[:10])) == 10
    assert found.radius[9:] == (0.0, 0.0, 0.0)
    assert found.remarks == ("2 of the chosen are equal to another: the pool has no more that differ",)


@pytest.mark.parametrize("method", METHODS)
def test_quotas_give_each_value_its_part(method: Method) -> None:
    rows = clustered_pool(600)
    strata = [("a", "b", "c", "d")[at % 4] for at in range(600)]
    found = choose(rows, 40, seed=1, strata=strata, quotas={"a": 0.5, "b": 6}, method=method)
    counted = Counter(strata[at] for at in found.positions)
    assert (counted["a"], counted["b"], counted["c"] + counted["d"]) == (20, 6, 14)
    assert found.remarks == ()


@pytest.mark.parametrize("method", METHODS)
def test_what_a_value_cannot_fill_goes_to_others(method: Method) -> None:
    rows = clustered_pool(200)
    strata = ["rare"] * 3 + ["common"] * 197
    found = choose(rows, 40, seed=1, strata=strata, quotas={"rare": 10, "absent": 5}, method=method)
    assert Counter(strata[at] for at in found.positions) == {"rare": 3, "common": 37}
    assert found.remarks == (
        "'rare' was to have 10 and the pool has 3: the rest went to others",
        "'absent' was to have 5 and the pool has 0: the rest went to others",
    )


def test_a_rare_value_keeps_its_quota_when_the_pool_is_drawn() -> None:
    rows = clustered_pool(5_000)
    strata = ["rare" if at < 30 else "common" for at in range(5_000)]
    found = choose(rows, 50, seed=1, strata=strata, quotas={"rare": 25}, pool=500)
    assert Counter(strata[at] for at in found.positions) == {"rare": 25, "common": 25}
    assert found.pool == 500


@pytest.mark.parametrize("method", METHODS)
def test_only_the_drawn_pool_needs_vectors(method: Method) -> None:
    rows, ids = clustered_pool(900), [f"item-{at}" for at in range(900)]
    weights, strata = [1.0 + at % 3 for at in range(900)], ["ab"[at % 9 == 0] for at in range(900)]
    how: dict[str, Any] = {"seed": 4, "pool": 200, "quotas": {"b": 0.5}}
    drawn = list(pool_of(ids, 30, strata=strata, weights=weights, **how))
    part = choose(
        rows[drawn], 30, ids=[ids[at] for at in drawn], strata=[strata[at] for at in drawn], method=method,
        weights=[weights[at] for at in drawn], **how,
    )  # fmt: skip
    whole = choose(rows, 30, ids=ids, strata=strata, weights=weights, method=method, **how)
    assert len(drawn) == 200
    assert tuple(drawn[at] for at in part.positions) == whole.positions


def test_heavier_items_are_preferred() -> None:
    rows = clustered_pool(400)
    weights = np.where(np.arange(400) < 200, 3.0, 1.0)
    plain = sum(at < 200 for at in choose(rows, 60, seed=1).positions)
    assert sum(at < 200 for at in choose(rows, 60, seed=1, weights=weights).positions) > plain + 10


def test_an_item_without_weight_is_chosen_last() -> None:
    rows = clustered_pool(50)
    weights = [0.0] * 10 + [1.0] * 40
    assert min(choose(rows, 40, seed=1, weights=weights).positions) == 10


def test_outliers_are_first_unless_they_are_trimmed() -> None:
    draw = np.random.default_rng(0)
    body = np.eye(1, 16) + draw.normal(scale=0.05, size=(300, 16))
    rows = np.concatenate([body, -np.eye(16)[:5]]).astype(np.float32)
    assert set(range(300, 305)) <= set(choose(rows, 20, seed=1).positions)
    assert max(choose(rows, 20, seed=1, trim=0.02).positions) < 300


def test_a_choice_is_more_varied_than_chance() -> None:
    rows = clustered_pool(5_000, dim=64, clusters=200)
    at_random = vendi(rows[np.random.default_rng(0).permutation(5_000)[:200]])
    scores = {method: vendi(rows[list(choose(rows, 200, seed=1, method=method).positions)]) for method in METHODS}
    assert scores["k_center"] > scores["facility"] > at_random
    assert scores["clusters"] > at_random


def test_typical_items_come_first_in_facility_location() -> None:
    rows = clustered_pool(2_000, clusters=5, noise=0.3)
    centres = [rows @ rows[at] for at in choose(rows, 3, seed=1, method="facility").positions]
    assert all((like > 0.7).mean() > 0.05 for like in centres)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"k": -1}, "k is -1"),
        ({"trim": 0.7}, "trim is 0.7; it must be from 0 to 0.5"),
        ({"pool": 2}, "pool is 2, fewer than the 3 wanted"),
        ({"weights": [1.0, -1.0, 1, 1, 1]}, "weight 1 is -1.0"),
        ({"weights": [float("nan"), 1, 1, 1, 1]}, "weight 0 is nan"),
        ({"ids": ["a"]}, "1 ids for 5 rows"),
        ({"strata": ["a"]}, "1 strata for 5 rows"),
        ({"quotas": {"a": 1}}, "quotas for 'a' need strata"),
        ({"strata": list("aabbc"), "quotas": {"a": 0}}, "quota of 'a' is 0"),
        ({"strata": list("aabbc"), "quotas": {"a": 1.5}}, "quota of 'a' is 1.5"),
        ({"strata": list("aabbc"), "quotas": {"a": 2, "b": 2}}, "quotas add up to 4 of 3 items"),
        ({"kept": np.ones((1, 3), np.float32)}, "kept rows have shape"),
        ({"kept": np.full((2, 4), np.nan, np.float32)}, "kept row 0 has a number that is NaN"),
    ],
)
def test_what_cannot_be_done_is_said(given: dict[str, object], said: str) -> None:
    rows = np.eye(5, 4, dtype=np.float32) + 0.1
    with pytest.raises(ValueError, match=said):
        choose(rows, **{"k": 3, "seed": 1, **given})  # type: ignore[arg-type]


def test_a_row_that_is_not_a_number_is_named() -> None:
    rows = clustered_pool(5)
    rows[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 2 \(c\) has a number that is NaN or infinite; 1 of 5"):
        choose(rows, 3, seed=1, ids=list("abcde"))


@given(st.integers(min_value=1, max_value=500), st.lists(st.floats(min_value=0.01, max_value=0.24), max_size=4))
def test_shares_come_out_even(k: int, shares: list[float]) -> None:
    found = counts(k, {str(at): share for at, share in enumerate(shares)})
    assert sum(found.values()) == round(sum(k * share for share in shares))
    assert all(abs(found[str(at)] - k * share) < 1 for at, share in enumerate(shares))


@given(st.lists(st.integers(min_value=0, max_value=30), max_size=8), st.integers(min_value=0, max_value=150))
def test_parts_are_as_equal_as_the_sizes_allow(sizes: list[int], total: int) -> None:
    found = level(np.array(sizes, np.int64), total).tolist()
    assert sum(found) == min(total, sum(sizes))
    assert all(part <= size for part, size in zip(found, sizes, strict=True))
    cut = [part for part, size in zip(found, sizes, strict=True) if part < size]
    assert not cut or max(found) - min(cut) <= 1
