"""Splits share nothing that belongs together."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation.splits import Groups, split_of

NAMES = st.text("abcdefgh", min_size=1, max_size=2)
LINKS = st.lists(st.tuples(NAMES, NAMES), max_size=30)
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def grouped(links: list[tuple[str, str]]) -> Groups:
    groups = Groups()
    for one, other in links:
        groups.link(one, other)
    return groups


@given(LINKS)
def test_what_is_linked_is_in_one_split(links: list[tuple[str, str]]) -> None:
    groups = grouped(links)
    for one, other in links:
        assert split_of(groups.of(one), SHARES, 1) == split_of(groups.of(other), SHARES, 1)


@given(LINKS, st.randoms(use_true_random=False))
def test_the_order_of_links_changes_nothing(links: list[tuple[str, str]], chance: object) -> None:
    mixed = links.copy()
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    first, second = grouped(links), grouped(mixed)
    assert all(first.of(name) == second.of(name) for link in links for name in link)


def test_shares_are_kept_and_a_seed_draws_anew() -> None:
    groups = Groups()
    drawn = [Counter(split_of(groups.of(f"item {n}"), SHARES, seed) for n in range(5_000)) for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    for counts in drawn:
        assert abs(counts["train"] - 4_000) < 150
        assert abs(counts["test"] - 500) < 100


def test_what_was_not_linked_stays_apart_and_a_longer_dataset_moves_nothing() -> None:
    groups = grouped([("a", "b")])
    before = {name: split_of(groups.of(name), SHARES, 3) for name in "abcdefgh"}
    groups.link("x", "y")
    assert before == {name: split_of(groups.of(name), SHARES, 3) for name in "abcdefgh"}
    assert groups.of("a") != groups.of("c")
