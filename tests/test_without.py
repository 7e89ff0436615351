"""``corpusgen audit without``: what would be lost without a provider or teacher, and what asking others would cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import corpusgen
from task_samples import write_label_task
from tracing_samples import done, judged, passed_on

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.stages.lineage.without import Amount, Without, without


def lost(folder: Path, name: str, *, teacher: str | None = None) -> Without:
    with Corpus.open(folder) as corpus:
        return without(corpus, name, teacher=teacher)


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return passed_on(tmp_path_factory.mktemp("chain"))


def test_without_its_judge_everything_that_was_judged_is_lost(judging: Path) -> None:
    found = lost(judging, "scripted/judge")
    assert (found.lost.records, found.remaining.records, found.derived.records) == (22, 1, 0)
    assert {role: amount.records for role, amount in found.roles.items()} == {"filter": 22, "judge": 22}
    datasets = {(one.name, one.split): (one.records, one.touched) for one in found.touched}
    assert {records == touched for records, touched in datasets.values()} == {True}
    assert {name for name, _ in datasets} == {"sentences-1"}


def test_without_who_wrote_the_answers_their_judgements_are_lost_too(judging: Path) -> None:
    found = lost(judging, "scripted/test")
    assert (found.lost.records, found.derived.records, found.remaining.records) == (23, 11, 0)
    assert {role: amount.records for role, amount in found.roles.items()} == {"response": 12}


def test_what_refused_on_the_way_counts(chain: Path) -> None:
    first, second = lost(chain, "scripted/first"), lost(chain, "scripted/second")
    assert (first.lost.records, second.lost.records) == (6, 1)
    assert second.remaining.records == 5


def test_asking_elsewhere_is_priced_by_the_tokens_that_were_measured(chain: Path) -> None:
    found = lost(chain, "scripted/second")
    (other,) = [one for one in found.elsewhere if one.teacher == "scripted/first"]
    asked = "select sum(input_tokens), sum(output_tokens) from answers join calls using (call_id) where teacher = ?"
    with Corpus.open(chain) as corpus:
        ((given, answered),) = corpus.journal.query(asked, ("scripted/second",))
    assert other.microusd == given * 1 + answered * 2  # PRICED: dollars per million are micro-dollars per token
    assert (other.outcome, other.records, other.price_version) == ("allow", 1, "spec: made up")


def test_a_teacher_without_a_price_is_said_to_have_none(chain: Path) -> None:
    found = lost(chain, "scripted/second")
    unknown = {one.teacher: one.remark for one in found.elsewhere if one.microusd is None}
    assert "no price per token" in unknown["embedded/smollm2-135m"]
    (named,) = [one for one in lost(chain, "scripted/second", teacher="acme/m1").elsewhere if one.teacher == "acme/m1"]
    assert (named.microusd, named.outcome) == (None, "deny")
    assert named.remark.startswith("price not known: ")


def test_teachers_that_go_are_not_among_those_that_could_be_asked(judging: Path) -> None:
    found = lost(judging, "corpusgen")
    assert found.teachers == ("scripted/judge", "scripted/test")
    assert not {"scripted/judge", "scripted/test"} & {one.teacher for one in found.elsewhere}
    assert found.remaining == Amount(records=0, input_tokens=0, output_tokens=0)


def test_who_was_never_asked_is_refused_with_who_was(chain: Path) -> None:
    with pytest.raises(UsageError, match=r"'acme' is no provider.*scripted/first.*scripted/second"):
        lost(chain, "acme")


def test_students_that_were_touched_are_named(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path), tmp_path / "corpus"
    done("distill", spec, "--corpus", corpus, "-q")
    found = lost(corpus, "scripted/test")
    students = [one for one in found.touched if one.kind == "student"]
    assert {one.split for one in students} >= {"kinds-1 (train)"}
    assert {(one.records, one.touched) for one in students} == {(30, 30), (12, 12)}


def test_the_command_says_it_in_words_and_in_json(chain: Path) -> None:
    told = corpusgen("audit", "without", "scripted/second", "--corpus", chain)
    assert told.code == 0
    assert "1 record" in told.stdout
    found = corpusgen("audit", "without", "scripted/second", "--corpus", chain, "--json").object
    assert (found["lost"]["records"], found["remaining"]["records"]) == (1, 5)


def test_what_was_imported_can_be_lost_and_is_asked_of_nobody(tmp_path: Path) -> None:
    file, corpus = tmp_path / "outside.jsonl", tmp_path / "corpus"
    file.write_text('{"prompt": "Name a bird.", "completion": "A wren."}\n', "utf-8")
    options = ("--dataset", "birds", "--licence", "CC-BY-4.0", "--source-id", "birds", "--title", "Birds")
    written = ("--generated-by", "openai-services-agreement-2026-01-01")
    done("import", file, *options, *written, "--corpus", corpus)
    whole, by_models = lost(corpus, "imported"), lost(corpus, "openai")
    assert (whole.lost.records, whole.elsewhere) == (1, ())
    assert (by_models.lost.records, "source" in by_models.roles) == (1, True)
