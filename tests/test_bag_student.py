from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.distill.losses import Loss, loss_and_gradient
from corpusgen.distill.ngrams import bucket_count, count_ngrams, hash_ngrams
from corpusgen.distill.selection import choose_settings, ways_to_fit
from corpusgen.distill.students.bag import BagStudent, Design, FitSettings, SpaceSettings, design, fit, learn_space

BITS = 12
HARD = Loss()
LABELS = ("animal", "plant")
NOUNS = {"animal": ("fox", "toad", "python", "heron"), "plant": ("fern", "herb", "shrub", "orchid")}
TEXTS = [
    f"a {size} {noun} of {place}"
    for size in ("small", "large", "spotted")
    for nouns in NOUNS.values()
    for noun in nouns
    for place in ("Asia", "Europe", "the Alps")
]
TARGETS = np.array([[0.9, 0.1] if any(noun in text for noun in NOUNS["animal"]) else [0.1, 0.9] for text in TEXTS])
SPACE = learn_space(TEXTS, SpaceSettings(bits=BITS, directions=5))


def lesson(count: int = len(TEXTS)) -> Design:
    return design(SPACE, TEXTS[:count])


@cache
def student(loss: Loss = HARD) -> BagStudent:
    return fit(lesson(), TARGETS, LABELS, FitSettings(loss=loss))


def test_a_student_learns_what_it_was_told() -> None:
    scores = student().log_probabilities(["a very large toad", "the spotted fern"])
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert np.allclose(np.exp(scores).sum(axis=1), 1.0)


def test_fitting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fit(lesson(), TARGETS, LABELS).save(tmp_path / name)
    for name in ("student.safetensors", "student.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_saved_student_answers_the_same(tmp_path: Path) -> None:
    student().save(tmp_path)
    assert np.array_equal(BagStudent.load(tmp_path).log_probabilities(TEXTS), student().log_probabilities(TEXTS))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="corpusgen-bag-1"):
        BagStudent.load(tmp_path)


def test_a_damaged_student_is_refused(tmp_path: Path) -> None:
    student().save(tmp_path)
    file = tmp_path / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"student\.safetensors"):
        BagStudent.load(tmp_path)


def test_text_that_says_nothing_leaves_the_commonest_answer() -> None:
    empty = learn_space([], SpaceSettings(bits=BITS))
    targets = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    scores = fit(design(empty, ["a", "b", "c"]), targets, LABELS).log_probabilities(["anything"])
    assert scores.argmax(axis=1).tolist() == [0]


def test_one_text_gets_the_same_answer_alone_and_in_a_batch() -> None:
    alone = np.concatenate([student().log_probabilities([text]) for text in TEXTS[:10]])
    assert np.allclose(alone, student().log_probabilities(TEXTS[:10]), atol=1e-6)


@pytest.mark.parametrize("texts", [[], [""], ["", "fox"], ["\n\n", "a\nb"], ["été 東京 🦊"]])
def test_odd_texts_get_probabilities_too(texts: list[str]) -> None:
    scores = student().log_probabilities(texts)
    assert scores.shape == (len(texts), 2)
    assert np.isfinite(scores).all()


def test_case_and_spacing_do_not_matter() -> None:
    scores = student().log_probabilities(["A  Small\tFOX", "a small fox"])
    assert np.array_equal(scores[0], scores[1])


def test_the_folded_table_is_the_best_map_of_its_points() -> None:
    # At the optimum the scores are the points' inner products with the loss's gradient, up to one bias per class; the
    # student's own answers, which come from the table alone, must fit that.
    points, penalty = lesson(), 0.05
    scores = fit(points, TARGETS, LABELS, FitSettings(loss=HARD, penalty=penalty)).log_probabilities(TEXTS)
    best = -(points.coordinates @ points.coordinates.T) @ loss_and_gradient(HARD, scores, TARGETS)[1] / penalty
    bias = scores - scores.mean(axis=1, keepdims=True) - best
    assert np.ptp(bias, axis=0).max() < 0.02 < np.ptp(best, axis=0).max()


def test_many_texts_are_fitted_through_some_of_them() -> None:
    some = design(SPACE, TEXTS, landmarks=30)
    assert some.coordinates.shape[1] <= 30
    answers = fit(some, TARGETS, LABELS).log_probabilities(TEXTS).argmax(axis=1)
    assert np.array_equal(answers, TARGETS.argmax(axis=1))


def test_temperature_changes_confidence_and_no_answer() -> None:
    plain, flat = student().log_probabilities(TEXTS), student().at_temperature(4.0).log_probabilities(TEXTS)
    assert np.array_equal(plain.argmax(axis=1), flat.argmax(axis=1))
    assert np.exp(flat).max() < np.exp(plain).max()


def test_soft_targets_teach_doubt_and_hard_labels_do_not() -> None:
    soft = student(Loss(hard=0.0, soft=1.0)).log_probabilities(TEXTS)
    assert np.exp(soft).max(axis=1).mean() == pytest.approx(0.9, abs=0.03)
    assert np.exp(student().log_probabilities(TEXTS)).max(axis=1).mean() > 0.97


def test_another_teacher_changes_the_soft_loss() -> None:
    logits = np.zeros((2, 2))
    loss = Loss(hard=0.0, soft=1.0, temperature=2.0)
    flat, sharp = np.full((2, 2), 0.5), np.array([[0.9, 0.1], [0.2, 0.8]])
    assert loss_and_gradient(loss, logits, flat)[0] == pytest.approx(0.0)
    assert loss_and_gradient(loss, logits, sharp)[0] > 0.05


@given(st.integers(0, 100), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.5, 4.0))
def test_gradients_are_slopes(seed: int, hard: float, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    logits, targets = draw.normal(size=(3, 4)), draw.dirichlet(np.ones(4), size=3)
    loss = Loss(hard=hard, soft=1.0 - hard, temperature=temperature)
    step = 1e-5 * draw.normal(size=logits.shape)
    above, below = (loss_and_gradient(loss, logits + sign * step, targets)[0] for sign in (1, -1))
    slope = float(np.sum(loss_and_gradient(loss, logits, targets)[1] * step))
    assert above - below == pytest.approx(2 * slope, rel=1e-3, abs=1e-9)


def test_selection_lists_every_way_and_never_needs_truth() -> None:
    ways = ways_to_fit("auto", penalties=(1e-5, 1e-4))
    found = choose_settings(SPACE, TEXTS, TARGETS, ways, folds=3)
    assert found.chosen == found.trials[0].settings
    assert {trial.settings for trial in found.trials} == set(ways)
    assert found.trials[0].agreement == max(trial.agreement for trial in found.trials) > 0.9


@given(st.lists(st.text(max_size=30), max_size=8))
def test_ngrams_of_a_text_do_not_depend_on_its_neighbours(texts: list[str]) -> None:
    together = count_ngrams(texts, BITS)
    for row, text in enumerate(texts):
        assert (together[[row]] != count_ngrams([text], BITS)).nnz == 0


def test_words_are_hashed_by_their_letters_wherever_they_stand() -> None:
    found = hash_ngrams(["red fox", "the red fox"], BITS)
    assert found.words[[0, 1]].tolist() == found.words[[3, 4]].tolist()
    assert found.pairs[0] == found.pairs[3]
    assert found.pairs[[1, 4]].tolist() == [bucket_count(BITS)] * 2
