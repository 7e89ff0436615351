"""Who is asked nothing: every role of a teacher is decided before anything is sent, and the refusal says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Ran, corpusgen
from flow_samples import write_task
from rights_samples import PROHIBITED, UNCLEAR, acme, acme_task, mocking, write_terms

from corpusgen.corpus import Corpus
from corpusgen.mock.server import Options

NOWHERE = "http://127.0.0.1:9/v1"

JUDGE_PROMPT = """---
name: judge
licence: CC0-1.0
api: chat
inputs: [response]
---
user:
How good is {response}?
"""


def judged(folder: Path, base_url: str, *, quality: bool) -> Path:
    """A task whose own teacher is fine, and whose judge is Acme, which prohibits it."""
    write_terms(folder / "terms.yaml", PROHIBITED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "judge.md").write_text(JUDGE_PROMPT)
    curate: dict[str, Any] = {"judge": {"teacher": acme(base_url), "prompt": "judge.md"}}
    if quality:
        curate["quality"] = {"judge": {"min_score": 3}}
    return write_task(folder, items=3, terms_files=["terms.yaml"], curate=curate)


def in_role(folder: Path, base_url: str, role: str) -> Path:
    if role in ("judge", "filter"):
        return judged(folder, base_url, quality=role == "filter")
    return acme_task(folder, base_url, PROHIBITED, answers_as=role)


@pytest.mark.parametrize("role", ["response", "judge", "filter", "simulated_user"])
def test_a_denied_teacher_is_asked_nothing_in_any_role(role: str, tmp_path: Path) -> None:
    log, corpus = tmp_path / "requests.jsonl", tmp_path / "corpus"
    with mocking(Options(log=log)) as url:
        spec = in_role(tmp_path, url, role)
        for command in ("plan", "run"):
            refused = corpusgen(command, spec, "--corpus", corpus)
            assert refused.code == 4
            line = int(refused.stderr.partition("task.yaml:")[2].partition(":")[0])
            assert "endpoint/m" in spec.read_text().splitlines()[line - 1]
            for said in (f"as {role}", "R04", "acme-terms-1", "s. 4.2", "You may not use Output to train models"):
                assert said in refused.stderr
            assert "These would pass: " in refused.stderr
            assert "embedded/smollm2-135m" in refused.stderr
    assert not log.exists() or log.read_text() == ""
    with Corpus.open(corpus, reading=True) as opened:
        assert opened.journal.query("select count(*) from calls") == [(0,)]


def decided(corpus: Path) -> list[tuple[Any, ...]]:
    with Corpus.open(corpus, reading=True) as opened:
        rows = opened.journal.query("select stage, subject, outcome, decision from decisions order by decision_id")
    return [(*row[:3], json.loads(row[3])) for row in rows]


def events(corpus: Path) -> list[str]:
    with Corpus.open(corpus, reading=True) as opened:
        return [str(row[0]) for row in opened.journal.query("select kind from events order by seq")]


def test_the_refusal_names_the_users_file_and_the_whole_table(tmp_path: Path) -> None:
    refused = corpusgen("plan", acme_task(tmp_path, NOWHERE, PROHIBITED), "--corpus", tmp_path / "corpus")
    assert str(tmp_path / "terms.yaml") in refused.stderr
    assert "corpusgen policy explain" in refused.stderr
    assert "Not legal advice" in refused.stderr


def test_other_roles_that_are_refused_are_named_too(tmp_path: Path) -> None:
    refused = corpusgen("plan", judged(tmp_path, NOWHERE, quality=True), "--corpus", tmp_path / "corpus")
    assert "Also refused: endpoint/m as filter (deny: R04)" in refused.stderr
    assert "a prohibition is not waived: ask a teacher that would pass" in refused.stderr
    assert "corpusgen policy waive" not in refused.stderr


def test_a_plan_shows_each_role_and_what_the_denied_asking_would_have_cost(tmp_path: Path) -> None:
    spec = judged(tmp_path, NOWHERE, quality=True)
    told = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert "scripted/test as response: allow" in told.stdout
    assert "endpoint/m as judge: deny (R04)" in told.stdout
    assert "endpoint/m as filter: deny (R04)" in told.stdout
    assert "asking endpoint/m would have cost $" in told.stdout
    judge = corpusgen("plan", spec, "--corpus", tmp_path / "corpus", "--json").object["teachers"][1]
    assert [(one["role"], one["outcome"]) for one in judge["decisions"]] == [("judge", "deny"), ("filter", "deny")]
    assert judge["would_have_cost_microusd"] == 0


PRICE = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "the tests"}


def test_a_refused_run_writes_down_what_it_would_have_cost(tmp_path: Path) -> None:
    priced = {"free": False, "price": PRICE}
    spec = acme_task(tmp_path, NOWHERE, PROHIBITED, teacher=priced, budget={"usd": "1"})
    assert corpusgen("run", spec, "--corpus", tmp_path / "corpus").code == 4
    ((stage, subject, outcome, decision),) = decided(tmp_path / "corpus")
    assert (stage, subject, outcome, decision["role"]) == ("plan", "endpoint/m", "deny", "response")
    assert decision["estimated_microusd"] > 0
    assert decision["subject_kind"] == "teacher"


def test_a_decision_is_an_event_once_and_an_answered_run_adds_none(tmp_path: Path) -> None:
    spec, corpus = write_task(tmp_path, items=3), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    once = events(corpus)
    assert (once.count("run_planned"), once.count("decided")) == (1, 1)
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert events(corpus) == once


def test_a_decision_that_changes_is_another_event(tmp_path: Path) -> None:
    spec, corpus = acme_task(tmp_path, NOWHERE, UNCLEAR), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus).code == 4
    write_terms(tmp_path / "terms.yaml", PROHIBITED)
    assert corpusgen("run", spec, "--corpus", corpus).code == 4
    assert [row[2] for row in decided(corpus)] == ["needs_waiver", "deny"]
    assert events(corpus).count("decided") == 2


def test_a_model_nobody_knows_is_refused_with_how_to_add_its_terms(tmp_path: Path) -> None:
    spec = write_task(tmp_path, items=1, teacher=acme(NOWHERE, name="endpoint/never-heard-of", provider="nobody"))
    refused = corpusgen("run", spec, "--corpus", tmp_path / "corpus")
    assert (refused.code, "R01" in refused.stderr) == (4, True)
    assert "no terms document covers model 'never-heard-of' on route api" in refused.stderr
    assert "corpusgen terms add" in refused.stderr
    assert "corpusgen teachers add NAME" in refused.stderr


def sources(*licences: str) -> list[dict[str, Any]]:
    named = [{"id": f"s{at}", "title": "Seeds", "licence": licence} for at, licence in enumerate(licences)]
    return [{"id": "words", "title": "Words", "licence": "CC0-1.0"}, *named]


def run_with(folder: Path, **changes: Any) -> Ran:
    spec = write_task(folder, items=1, **changes)
    return corpusgen("run", spec, "--corpus", folder / "corpus")


def test_a_seed_of_unknown_licence_is_refused(tmp_path: Path) -> None:
    refused = run_with(tmp_path, sources=sources("unknown"))
    assert (refused.code, "R12" in refused.stderr, "'unknown'" in refused.stderr) == (4, True, True)
    assert "correct the source's licence" in refused.stderr


def test_share_alikes_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": False}
    accepted = use | {"accepted_duties": ["share_alike", "attribution", "notice_file"]}
    refused = run_with(tmp_path, sources=sources("CC-BY-SA-4.0", "GFDL-1.3-or-later"), intended_use=accepted)
    assert refused.code == 4
    assert "R12" in refused.stderr
    assert "one dataset for each licence" in refused.stderr


def test_nothing_leaves_the_machine_where_egress_is_none(tmp_path: Path) -> None:
    far = {"name": "deepseek/deepseek-chat", "script": None, "free": False, "parameters": {"max_tokens": 8}}
    spec = write_task(tmp_path, items=1, egress="none", budget={"usd": "1"}, teacher=far)
    refused = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert (refused.code, "egress" in refused.stderr) == (4, True)
    assert run_with(tmp_path / "here", egress="none").code == 0


def with_contacts(folder: Path, **changes: Any) -> Path:
    held = [{"id": "words", "title": "Words", "licence": "CC0-1.0", "personal_data": ["contact"], "lawful_basis": "ok"}]
    return acme_task(folder, NOWHERE, {"hosts": ["api.acme.example"]}, sources=held, **changes)


AGREEMENT = {"id": "dpa-1", "host": "api.acme.example", "kind": "dpa", "classes": ["contact"]}
FAR = {"base_url": "https://api.acme.example/v1"}


def test_personal_data_needs_an_agreement_with_who_is_asked(tmp_path: Path) -> None:
    refused = corpusgen("plan", with_contacts(tmp_path, teacher=FAR), "--corpus", tmp_path / "corpus")
    assert (refused.code, "R11" in refused.stderr) == (4, True)
    assert "name the provider's agreement under agreements" in refused.stderr
    covered = with_contacts(tmp_path, teacher=FAR, agreements=[AGREEMENT])
    assert corpusgen("plan", covered, "--corpus", tmp_path / "corpus").code == 0
    expired = with_contacts(tmp_path, teacher=FAR, agreements=[AGREEMENT | {"valid_until": "2020-01-01"}])
    assert corpusgen("plan", expired, "--corpus", tmp_path / "corpus").code == 4


def test_a_kind_of_personal_data_that_is_let_through_counts_as_sent(tmp_path: Path) -> None:
    def planned(**pii: Any) -> int:
        terms = {"hosts": ["api.acme.example"]}
        spec = acme_task(tmp_path, NOWHERE, terms, teacher=FAR, curate={"pii": pii})
        return corpusgen("plan", spec, "--corpus", tmp_path / "corpus").code

    assert planned(kinds={"email": "allow"}) == 4
    assert planned(kinds={"email": "mask"}) == 0


def test_a_kind_that_is_masked_is_not_sent(tmp_path: Path) -> None:
    held = [{"id": "words", "title": "Words", "licence": "CC0-1.0", "personal_data": ["email"], "lawful_basis": "ok"}]

    def planned(**changes: Any) -> int:
        spec = acme_task(tmp_path, NOWHERE, {"hosts": ["api.acme.example"]}, sources=held, teacher=FAR, **changes)
        return corpusgen("plan", spec, "--corpus", tmp_path / "corpus").code

    assert planned() == 4
    assert planned(curate={"pii": {"kinds": {"email": "mask"}}}) == 0
    assert planned(curate={"pii": {"default": "block"}}) == 0
    assert planned(curate={"pii": {"default": "mask", "kinds": {"email": "allow"}}}) == 4
