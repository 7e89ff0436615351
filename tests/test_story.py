"""``corpusgen why``: one record's story, for a person and in PROV's words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import corpusgen
from several_samples import saying, write_several
from tracing_samples import done, judged, passed_on, rows
from without_permission import held_to_permissions, nobody_may_write

from corpusgen.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged(tmp_path_factory.mktemp("judged"))


def inside(corpus: Path, split: str = "train") -> str:
    """A record that was judged and is in a dataset."""
    sql = f"select record from dataset_records join v_record using (record_no) where split = '{split}' order by 1"
    return str(rows(corpus, sql)[0][0])


def why(corpus: Path, record: str) -> str:
    ran = corpusgen("why", record, "--corpus", corpus)
    assert ran.code == 0, ran.stderr
    return ran.stdout


def test_the_story_goes_from_the_source_to_the_dataset(corpus: Path) -> None:
    told = why(corpus, inside(corpus))
    order = ["source ", "prompt ", "run ", "decided ", "terms ", "asked ", "child ", "dataset "]
    places = [told.index(f"\n  {word}") for word in order]
    assert places == sorted(places)
    assert "ours as seed: Written for the tests (CC0-1.0), rights of Jo Bloggs, item t" in told
    assert "R09 corpusgen-scripted: training a model is allowed" in told
    assert "scripted/judge (corpusgen, route mock, localhost) as filter, judge" in told
    assert "sentences-1, split train, sealed" in told
    assert told.endswith("Not legal advice.\n")


def test_the_beginning_of_an_id_is_enough_where_no_other_begins_like_it(corpus: Path) -> None:
    record = inside(corpus)
    assert why(corpus, record[:14].upper()) == why(corpus, record)


def test_several_that_begin_alike_are_listed_and_none_is_said(corpus: Path) -> None:
    ((beginning,), *_) = rows(corpus, "select record[1:1] from v_record group by 1 having count(*) > 1 order by 1")
    ran = corpusgen("why", beginning, "--corpus", corpus)
    assert ran.code == 2
    assert f"several records begin with {beginning}:" in ran.stderr
    assert "(response)" in ran.stderr or "(judgement)" in ran.stderr
    none = corpusgen("why", "0123456789abcdef", "--corpus", corpus)
    assert (none.code, "begins with 0123456789abcdef" in none.stderr) == (2, True)
    wrong = corpusgen("why", "select 1", "--corpus", corpus)
    assert (wrong.code, "write 64 hexadecimal digits" in wrong.stderr) == (2, True)


def test_a_judgement_names_the_answer_it_is_about(corpus: Path) -> None:
    (judgement,) = rows(corpus, "select record from v_record where kind = 'judgement' order by 1 limit 1")
    told = why(corpus, judgement[0])
    assert "\n  parent " in told
    assert "ours as context" in told


def test_json_is_prov_whose_relations_name_what_is_there(corpus: Path) -> None:
    told = corpusgen("why", inside(corpus), "--corpus", corpus, "--json").object
    prov = told["prov"]
    there = {name for kind in ("entity", "activity", "agent") for name in prov[kind]}
    ties = [tie for name, ties in prov.items() if name[:3] in ("was", "use", "had", "act") and name != "activity"
            for tie in ties.values()]  # fmt: skip
    ends = {end for tie in ties for key, end in tie.items() if key != "prov:role"}
    assert ends <= there
    words = {"wasGeneratedBy", "used", "wasDerivedFrom", "wasAttributedTo", "wasAssociatedWith", "hadMember"}
    assert words <= prov.keys()
    assert {tie["prov:role"] for tie in prov["wasGeneratedBy"].values()} == {"response", "filter, judge"}


def test_what_a_teacher_refused_before_is_part_of_the_story(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    sql = "select record from record_requests join v_record using (record_no) group by 1 having count(*) > 1"
    told = why(corpus, rows(corpus, sql)[0][0])
    assert told.index("asked     scripted/first") < told.index("asked     scripted/second")
    assert "served second" in told


def test_what_strangers_wrote_steers_no_terminal(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"odd": saying("\x1b[2Jgone \x07")}, items=1)
    done("run", spec, "--corpus", tmp_path / "corpus", "-q")
    told = why(tmp_path / "corpus", rows(tmp_path / "corpus", "select record from v_record")[0][0])
    assert "\x1b" not in told
    assert "[2Jgone" in told


def test_an_answer_that_waits_to_be_committed_is_said_to(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"one": saying("yes")}, items=2)
    done("run", spec, "--corpus", tmp_path / "corpus", "-q")
    with Corpus.open(tmp_path / "corpus") as corpus:
        waiting = "insert into records select x'{0}', run_id, dataset, split, 99, item_id, request_key, first_key,"
        waiting += " from_cache, item, null from records limit 1"
        corpus.journal.run_now(lambda transaction: transaction.execute(waiting.format("ab" * 32)).close())
    ran = corpusgen("why", "abab", "--corpus", tmp_path / "corpus")
    assert (ran.code, "not committed yet" in ran.stderr) == (2, True)


def test_a_replayed_answer_names_the_request_that_was_really_sent(tmp_path: Path) -> None:
    for name in ("one", "two"):
        spec = write_several(tmp_path / "task", {"one": saying("yes")}, items=2, name=name)
        done("run", spec, "--corpus", tmp_path / "corpus", "-q")
    found = rows(tmp_path / "corpus", "select from_cache, origin_request_no is null from requests order by 1")
    assert found == [(False, True), (False, True), (True, False), (True, False)]


def test_a_corpus_that_may_not_be_written_tells_its_stories_too(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    record = rows(corpus, "select record from v_record order by 1")[0][0]
    shutil.rmtree(corpus / "lineage")
    with nobody_may_write(corpus):
        ran = held_to_permissions("why", record, "--corpus", corpus)
    assert (ran.code, "asked     scripted/first" in ran.stdout) == (0, True), ran.stderr
    assert not (corpus / "lineage").exists()


def test_a_folder_with_stars_and_quotes_in_its_name_is_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] *"
    told = why(passed_on(folder), rows(folder / "corpus", "select record from v_record order by 1")[0][0])
    assert "asked     scripted/first" in told
