"""Answers that came under terms nobody checked are kept, counted and told, and in no dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from command import corpusgen
from flow_samples import write_task
from rights_samples import ACME, PROHIBITED, acme, acme_task, mocking, write_terms

from corpusgen.corpus import Corpus
from corpusgen.mock.server import Options
from corpusgen.store.shards import read_records

STRANGER = "answered by somebody-else-7b, terms not checked"


def one_stranger(folder: Path, url: str, **changes: Any) -> Path:
    """A task of three words, about one of which the mock teacher answers in another model's name."""
    spec = acme_task(folder, url, **changes)
    rows = [{"id": f"w{at}", "word": word} for at, word in enumerate(("one", "fault:wrong-model", "two"))]
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return spec


def test_an_answer_by_a_model_whose_terms_nobody_checked_is_put_aside(tmp_path: Path) -> None:
    log, corpus = tmp_path / "requests.jsonl", tmp_path / "corpus"
    with mocking(Options(log=log)) as url:
        spec = one_stranger(tmp_path, url)
        ran = corpusgen("run", spec, "--corpus", corpus, "--json", "-q")
    assert (ran.code, ran.object["records"], ran.object["put_aside"]) == (0, 3, {STRANGER: 1})
    assert f"warning: 1 answer put aside, in no dataset: {STRANGER}" in ran.stderr
    assert len(log.read_text().splitlines()) == 3  # so an empty one would say something
    assert decisions(corpus) == [("R13", "endpoint/m", "deny", "somebody-else-7b")]
    status = corpusgen("status", "--corpus", corpus)
    assert "1 record of endpoint/m put aside, in no dataset: nobody checked the terms of somebody-else-7b" in (
        status.stdout
    )
    made = corpusgen("select", "words", "--spec", spec, "--corpus", corpus, "--json").object
    assert made["funnel"] == {"read": 3, "kept": 2, STRANGER: 1}
    found = corpusgen("query", "select stage, reason from findings", "--corpus", corpus, "--json").object["rows"]
    assert found == [{"stage": "rights", "reason": STRANGER}]
    sealed = corpusgen("seal", "words-1", "--spec", spec, "--corpus", corpus, "--json")
    assert (sealed.code, sealed.object["rows"]) == (0, 2)


def test_without_a_spec_it_is_put_aside_as_well(tmp_path: Path) -> None:
    with mocking(Options()) as url:
        spec = one_stranger(tmp_path, url)
        assert corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q").code == 0
    made = corpusgen("select", "words", "--corpus", tmp_path / "corpus", "--json").object
    assert made["funnel"] == {"read": 3, "kept": 2, STRANGER: 1}


def test_a_model_under_the_same_terms_is_another_model_and_not_put_aside(tmp_path: Path) -> None:
    with mocking(Options()) as url:
        spec = one_stranger(tmp_path, url)
        write_terms(tmp_path / "terms.yaml", {"models": ["m", "somebody-else-*"]})
        ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus", "--json", "-q").object
    assert (ran["other_models"], ran["put_aside"]) == ({"somebody-else-7b": 1}, {})
    for named in (("--spec", spec), ()):  # without it, by what the run decided
        made = corpusgen("select", "words", *named, "--corpus", tmp_path / "corpus", "--json").object
        assert made["funnel"] == {"read": 3, "kept": 3}
    assert "put aside" not in corpusgen("status", "--corpus", tmp_path / "corpus").stdout
    assert [(row[1], row[2], row[3]) for row in decisions(tmp_path / "corpus")] == [
        ("endpoint/m", "allow", "somebody-else-7b")
    ]


def decisions(corpus: Path) -> list[Any]:
    """What was decided of requests: rule, teacher, outcome and model."""
    sql = (
        "select decision ->> '$.reasons[0][0]', subject, outcome, decision ->> '$.model' from decisions"
        " where stage = 'request' order by decision_id"
    )
    with Corpus.open(corpus, reading=True) as opened:
        return opened.journal.query(sql)


def test_what_was_selected_before_anybody_knew_is_not_sealed(tmp_path: Path) -> None:
    with mocking(Options()) as url:
        spec = one_stranger(tmp_path, url)
        write_terms(tmp_path / "terms.yaml", {"models": ["m", "somebody-else-*"]})
        assert corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q").code == 0
    assert corpusgen("select", "words", "--spec", spec, "--corpus", tmp_path / "corpus").code == 0
    write_terms(tmp_path / "terms.yaml", {"models": ["m"]})
    refused = corpusgen("seal", "words-1", "--spec", spec, "--corpus", tmp_path / "corpus")
    assert (refused.code, f"(1 {STRANGER}); select it anew" in refused.stderr) == (6, True), refused.stderr


def rerouted(folder: Path, url: str, **use: Any) -> Path:
    """Acme's server, called one's own from now on; the same questions to the same address."""
    write_terms(folder / "terms.yaml", {}, {"id": "acme-own-1", "routes": ["self_hosted"], "kind": "model_licence"})
    intended = {"student_distribution": "internal", "student_competes": "no", "commercial": False} | use
    teacher = acme(url, route="self_hosted")
    return write_task(folder, items=3, teacher=teacher, terms_files=["terms.yaml"], intended_use=intended)


def test_a_route_that_changes_under_a_cached_answer_leaves_it_under_its_first_terms(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    with mocking(Options()) as url:
        competing = {"outputs_train_competing": "prohibited", **{k: PROHIBITED[k] for k in ("quote", "quote_location")}}
        spec = acme_task(tmp_path, url, competing)
        assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
        spec = rerouted(tmp_path, url)
        found = corpusgen("run", spec, "--corpus", corpus, "--json", "-q")
        assert found.code == 0, found.stderr
        again = found.object
        assert (again["requests"], again["put_aside"]) == (0, {})
        documents = [ACME | competing, ACME | {"id": "acme-own-1", "routes": ["self_hosted"]}]
        spec = rerouted(tmp_path, url, student_competes="yes")
        write_terms(tmp_path / "terms.yaml", *documents)
        ran = corpusgen("run", spec, "--corpus", corpus, "--json", "-q")
    why = "R04: the terms endpoint/m answered under do not allow it"
    assert (ran.code, ran.object["requests"], ran.object["put_aside"]) == (0, 0, {why: 3})
    selected = corpusgen("select", "words", "--spec", spec, "--corpus", corpus)
    assert (selected.code, why in selected.stderr) == (2, True)
    with Corpus.open(corpus, reading=True) as opened:
        rows = opened.journal.query("select outcome, decision from decisions where stage = 'request' order by 1")
    assert [row[0] for row in rows] == ["allow", "deny"]
    for row in rows:
        decision = json.loads(row[1])
        assert decision["terms_ids"] == ["acme-terms-1"]
        assert "R14" in {reason[0] for reason in decision["reasons"]}


JUDGE = """---
name: judge
licence: CC0-1.0
api: chat
inputs: [response]
---
user:
How good is {response}? fault:wrong-model
"""


@pytest.mark.parametrize("covered", [False, True])
def test_a_score_by_a_model_nobody_checked_decides_nothing(covered: bool, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_terms(tmp_path / "terms.yaml", {"models": ["m", "somebody-else-*"] if covered else ["m"]})
    (tmp_path / "judge.md").write_text(JUDGE)
    with mocking(Options()) as url:
        judge = {"teacher": acme(url, parameters={"max_tokens": 64}), "prompt": "judge.md", "min": 0, "max": 1e6}
        spec = write_task(tmp_path, items=2, terms_files=["terms.yaml"], curate={"judge": judge})
        ran = corpusgen("run", spec, "--corpus", corpus, "--json", "-q")
    assert ran.code == 0, ran.stderr
    assert ran.object["put_aside"] == ({} if covered else {STRANGER: ran.object["judged"]})
    assert corpusgen("select", "words", "--spec", spec, "--corpus", corpus).code == 0
    (file,) = (corpus / "datasets").glob(".words-1/*.parquet")
    assert {verdict.check for one in read_records([file]) for verdict in one.verdicts} >= {"select"}
    assert any(verdict.check == "judge" for one in read_records([file]) for verdict in one.verdicts) == covered
