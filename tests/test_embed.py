from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.curation import lexical, minilm
from corpusgen.curation.embed import READ, Embedder, Remembering, checked, key
from corpusgen.curation.lots import drawn
from corpusgen.errors import UsageError

WORDS = [
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "bird",
    "sings",
    "sleeps",
    "runs",
    "the",
    "old",
    "house",
    "tree",
    "river",
]
ODD = [
    "",
    " \n\t",
    "\ud800",
    "a\ud800b",
    "🙂🙂",
    "猫在树下睡觉",
    "แมวนอน",
    "ﬁ naïve Ünïcode",
    "\x00\x07",
    "-—…",
    "x" * 50_000,
]


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def lexically() -> Embedder:
    return lexical.learnt(sentences(400), dim=32)


@pytest.fixture(scope="module")
def semantically() -> Embedder:
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    try:
        return minilm.opened()
    except UsageError as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["lexically", "semantically"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    found: Embedder = request.getfixturevalue(request.param)
    return found


class Dictionary(dict[str, bytes]):
    """A memory that counts what it was asked to keep."""

    kept = 0

    def known(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return {name: self[name] for name in keys if name in self}

    def keep(self, rows: Mapping[str, bytes]) -> None:
        self.kept += len(rows)
        self.update(rows)


def test_every_text_has_a_row_of_length_one_whatever_is_in_it(embedder: Embedder) -> None:
    rows = embedder.embed(ODD)
    assert rows.shape == (len(ODD), embedder.dim)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_no_texts_are_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dim)


def test_a_text_has_the_same_row_alone_as_among_others(embedder: Embedder) -> None:
    texts = [*sentences(50), "", "猫在树下"]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert np.allclose(alone, embedder.embed(texts), atol=1e-6)


def test_what_follows_the_part_that_is_read_makes_no_difference(embedder: Embedder) -> None:
    long = ("cat sleeps under the old tree " * 400)[:READ]
    rows = embedder.embed([long, long + " and a completely different ending" * 9])
    assert np.array_equal(rows[0], rows[1])


def test_ten_megabytes_are_embedded_as_their_beginning(embedder: Embedder) -> None:
    assert np.isfinite(embedder.embed(["猫" * 3_400_000, "dog " * 2_500_000])).all()


def test_texts_without_words_are_alike_and_like_nothing_else(lexically: Embedder) -> None:
    rows = lexically.embed(["", "...", "the cat sleeps"])
    assert rows[0] @ rows[1] == 1
    assert rows[0] @ rows[2] == 0


def test_shared_words_bring_texts_together(lexically: Embedder) -> None:
    rows = lexically.embed(["the cat sleeps under the tree", "the old cat sleeps under a tree", "blue river runs"])
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]


def test_scripts_without_spaces_are_compared_by_their_characters() -> None:
    texts = ["猫在树下睡觉", "老猫在树下睡觉", "今天股市大跌了", "แมวนอนใต้ต้นไม้", "แมวแก่นอนใต้ต้นไม้"]
    rows = lexical.learnt(texts * 3).embed(texts)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]
    assert rows[3] @ rows[4] > 0.5 > rows[3] @ rows[0]


def test_mixed_scripts_keep_the_words_of_each() -> None:
    assert list(lexical.words("Das iPhone15は猫です")) == [
        "das",
        "は猫",
        "猫で",
        "です",
        "は猫で",
        "猫です",
        "iphone15",
    ]


def test_what_is_learnt_goes_by_the_texts_and_not_by_their_order() -> None:
    texts = sentences(300)
    one, other = lexical.learnt(texts, dim=16), lexical.learnt(reversed(texts), dim=16)
    assert one.digest == other.digest
    assert np.array_equal(one.embed(texts), other.embed(texts))


def test_another_seed_or_sample_is_another_embedder() -> None:
    texts = sentences(300)
    digests = {lexical.learnt(texts, dim=8).digest, lexical.learnt(texts, dim=8, seed=2).digest,
               lexical.learnt(texts, dim=9).digest, lexical.learnt(texts[:-1], dim=8).digest}  # fmt: skip
    assert len(digests) == 4


def test_one_text_a_hundred_thousand_times_is_learnt_from_once() -> None:
    learnt = lexical.learnt((text for _ in range(100_000) for text in ["the same"]), sample=10)
    assert learnt.dim == 2


def test_learning_from_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the pool is empty"):
        lexical.learnt([])


@given(st.lists(st.text(max_size=4)), st.integers(min_value=1, max_value=9), st.randoms(use_true_random=False))
def test_a_sample_of_a_stream_is_different_texts_in_an_order_of_their_own(
    texts: list[str], most: int, mix: random.Random
) -> None:
    sample = drawn(texts, most, 1)
    assert len(sample) == len(set(sample)) == min(most, len(set(texts)))
    mix.shuffle(texts)
    assert drawn(texts, most, 1) == sample


def test_a_text_is_computed_once_and_remembered(lexically: Embedder) -> None:
    memory = Dictionary()
    remembering = Remembering(embedder=lexically, memory=memory)
    texts = ["the cat", "the dog", "the cat", "\ud800"]
    assert np.array_equal(remembering.embed(texts), lexically.embed(texts))
    assert np.array_equal(remembering.embed(texts[::-1]), lexically.embed(texts[::-1]))
    assert memory.kept == 3


def test_a_remembered_row_of_another_length_is_computed_again(lexically: Embedder) -> None:
    memory = Dictionary({key(lexically, "a cat"): b"\0\0\0\0"})
    rows = Remembering(embedder=lexically, memory=memory).embed(["a cat"])
    assert np.array_equal(rows, lexically.embed(["a cat"]))


@pytest.mark.parametrize(
    ("wrong", "said"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0.0, "all zeros")]
)
def test_a_row_that_is_no_direction_is_named(wrong: float, said: str) -> None:
    rows = np.ones((5, 3), np.float32)
    rows[3] = wrong
    with pytest.raises(ValueError, match=rf"row 3 \(d\).*{said}"):
        checked(rows, names=list("abcde"))


def test_rows_of_any_length_become_directions() -> None:
    assert np.allclose(checked(np.array([[3.0, 4.0]])), [[0.6, 0.8]])


@settings(max_examples=30)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_any_text_can_be_embedded(texts: list[str]) -> None:
    rows = lexical.learnt(texts, dim=4).embed([*texts, "something else"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_missing_package_is_named_with_what_to_install() -> None:
    missing = minilm.Shipped(module="no_such_package", path="x.onnx", sha256="")
    with pytest.raises(UsageError, match=r"need no_such_package/x.onnx.*corpusgen-distill\[semantic\]"):
        minilm.content(missing)


def test_a_file_that_is_not_the_one_expected_is_refused() -> None:
    other = minilm.Shipped(module="corpusgen", path="errors.py", sha256="0" * 64)
    with pytest.raises(UsageError, match=r"errors.py is not the file expected"):
        minilm.content(other)
