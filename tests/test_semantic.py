from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paraphrase_samples import TRIPLES
from vector_samples import clustered_pool

from corpusgen.curation import minilm, semantic
from corpusgen.curation.clusters import clustered
from corpusgen.curation.embed import Vectors
from corpusgen.curation.lexical import learnt
from corpusgen.curation.semantic import Lookalikes, Settings, remarks
from corpusgen.errors import UsageError


@dataclass(frozen=True)
class Angles:
    """Texts that are degrees on a circle."""

    name: str = "angle"
    digest: str = "angles"
    dim: int = 2
    measures: str = "meaning"

    def embed(self, texts: Sequence[str]) -> Vectors:
        turned = np.radians([float(text) for text in texts])
        return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32).reshape(-1, 2)


def found(degrees: Sequence[float], **given: float) -> dict[str, str | None]:
    items = [(f"i{at}", str(angle)) for at, angle in enumerate(degrees)]
    return {name: one.other for name, one in remarks(items, Angles(), Settings(**given))}  # type: ignore[arg-type]


def test_the_closest_earlier_text_is_named() -> None:
    assert found([0, 90, 12, 10, 180]) == {"i2": "i0", "i3": "i2"}


def test_a_remark_keeps_the_text_and_says_what_was_measured() -> None:
    (name, one), *rest = remarks([("a", "0"), ("b", "20")], Angles())  # type: ignore[arg-type]
    assert (name, rest, one.kept, one.check, one.other) == ("b", [], True, "semantic", "a")
    assert (one.metric, one.score, one.threshold) == ("cosine of angle vectors", 0.9397, 0.85)
    assert one.reason == "may mean the same as an earlier text"


def test_vectors_of_wording_do_not_speak_of_meaning() -> None:
    embedder = learnt(["the cat sleeps", "the dog runs"])
    ((_, one),) = remarks([("a", "the cat sleeps"), ("b", "The cat sleeps!")], embedder)
    assert one.reason == "shares its rarer words with an earlier text"


def test_an_item_seen_again_is_not_its_own_lookalike() -> None:
    assert list(remarks([("a", "0"), ("a", "0")], Angles())) == []  # type: ignore[arg-type]


@given(st.lists(st.integers(min_value=0, max_value=359), max_size=40), st.integers(min_value=1, max_value=7))
@settings(max_examples=50, deadline=None)
def test_how_a_stream_is_cut_makes_no_difference(degrees: list[int], size: int) -> None:
    whole, pieces = Lookalikes(Angles()), Lookalikes(Angles())  # type: ignore[arg-type]
    ids, texts = [f"i{at}" for at in range(len(degrees))], [str(angle) for angle in degrees]
    cut = [
        one
        for start in range(0, len(ids), size)
        for one in pieces.look(ids[start : start + size], texts[start : start + size])
    ]
    assert [one and one.score for one in whole.look(ids, texts)] == [one and one.score for one in cut]


def test_long_streams_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered_pool(300, dim=8)
    ids = [f"i{at}" for at in range(300)]
    whole = _compared(ids, rows)
    monkeypatch.setattr(semantic, "AT_ONCE", 7)
    monkeypatch.setattr(semantic, "TILE", 5)
    assert _compared(ids, rows) == whole
    like = rows @ rows.T
    assert [one is not None for one in whole] == [bool((like[at, :at] >= 0.85).any()) for at in range(300)]


def _compared(ids: Sequence[str], rows: Vectors) -> list[float | None]:
    seen = Lookalikes(_Wide())  # type: ignore[arg-type]
    return [None if one is None else one.score for one in seen.compare(ids, rows)]


@dataclass(frozen=True)
class _Wide(Angles):
    dim: int = 8


def test_what_is_beyond_memory_is_compared_and_counted() -> None:
    seen = Lookalikes(Angles(), Settings(most=2))  # type: ignore[arg-type]
    told = seen.look(list("abcd"), ["0", "90", "180", "180"]) + seen.look(list("ef"), ["181", "91"])
    assert [one and one.other for one in told] == [None, None, None, None, None, "b"]
    assert seen.forgotten == 4


@pytest.mark.parametrize(("given", "said"), [({"flag": 0}, "flag is 0"), ({"flag": 1.1}, "flag is 1.1"),
                                             ({"most": 0}, "most is 0")])  # fmt: skip
def test_a_setting_outside_its_range_is_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**given)  # type: ignore[arg-type]


def test_a_row_that_is_not_a_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 1 \(b\)"):
        Lookalikes(Angles()).compare(["a", "b"], np.array([[1, 0], [np.nan, 0]]))  # type: ignore[arg-type]


def _scores(embedder: object) -> tuple[list[float], list[float], list[float]]:
    rows = embedder.embed([text for triple in TRIPLES for text in triple])  # type: ignore[attr-defined]
    rows = rows.reshape(len(TRIPLES), 3, -1)
    unrelated = (rows[:, 0] @ rows[:, 1].T)[~np.eye(len(TRIPLES), dtype=bool)]
    return (rows[:, 0] * rows[:, 1]).sum(1).tolist(), (rows[:, 0] * rows[:, 2]).sum(1).tolist(), unrelated.tolist()


def test_a_transformer_puts_paraphrases_above_all_that_is_unrelated() -> None:
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    try:
        paraphrases, twins, unrelated = _scores(minilm.opened())
    except UsageError as missing:
        pytest.skip(str(missing))
    assert np.mean(np.array(paraphrases) > max(unrelated)) > 0.9
    assert max(unrelated) < 0.7
    assert np.median(paraphrases) > np.median(twins)


def test_hashed_words_take_twins_for_closer_than_paraphrases() -> None:
    paraphrases, twins, _ = _scores(learnt([text for triple in TRIPLES for text in triple]))
    assert np.median(twins) > np.median(paraphrases) + 0.3


def test_clusters_find_the_groups_that_are_there() -> None:
    rows = clustered_pool(600, clusters=6, noise=0.2)
    found = clustered(rows, 6, seed=1)
    assert len(found.centres) == 6
    own = (rows * found.centres[found.of_row]).sum(axis=1)
    assert np.array_equal(found.of_row, np.argmax(rows @ found.centres.T, axis=1))
    assert own.mean() > 0.8


def test_clusters_are_no_more_than_there_are_different_rows() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(clustered(rows, 10, seed=1).centres) == 3


def test_clusters_go_by_the_rows_and_not_by_their_order() -> None:
    rows = clustered_pool(200)
    mixed = np.random.default_rng(0).permutation(200)
    one, other = clustered(rows, 8, seed=1), clustered(rows[mixed], 8, seed=1)
    assert np.array_equal(one.of_row[mixed], other.of_row)


def test_no_rows_have_no_clusters() -> None:
    assert len(clustered(np.empty((0, 4), np.float32), 3, seed=1).of_row) == 0
