"""``corpusgen policy``: the table a lawyer reads, and waivers that lift what is open and nothing else."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command import Ran, corpusgen
from rights_samples import PROHIBITED, UNCLEAR, acme, acme_task, write_terms

from corpusgen.corpus import Corpus
from corpusgen.stages.loading import load_task
from corpusgen.stages.terms.waiving import Asked, grant

NOWHERE = "http://127.0.0.1:9/v1"
TODAY = datetime.now(UTC).date()
NEXT_YEAR = str(TODAY + timedelta(days=300))


def waive(folder: Path, *more: str, terms: str = "acme-terms-1", until: str = NEXT_YEAR, **options: str) -> Ran:
    (folder / "letter.txt").write_text("Dear customer, yes.")
    given = {"by": "Ms Counsel", "reason": "they wrote so", "evidence": str(folder / "letter.txt")} | options
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    here = ("--corpus", folder / "corpus", "--spec", folder / "task.yaml")
    return corpusgen("policy", "waive", "--terms", terms, "--until", until, *words, *here, *more)


def planned(folder: Path) -> Ran:
    return corpusgen("plan", folder / "task.yaml", "--corpus", folder / "corpus", "--json")


def waivers(folder: Path) -> list[dict[str, Any]]:
    found = corpusgen("policy", "waivers", "--corpus", folder / "corpus", "--json").object["waivers"]
    assert isinstance(found, list)
    return found


def test_a_waiver_lifts_what_is_unclear_and_is_kept_with_its_evidence(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    assert planned(tmp_path).code == 4
    granted = waive(tmp_path, "--json")
    assert granted.code == 0, granted.stderr
    assert granted.object["evidence_sha256"] == hashlib.sha256(b"Dear customer, yes.").hexdigest()
    assert planned(tmp_path).code == 0
    explained = corpusgen("policy", "explain", tmp_path / "task.yaml", "--corpus", tmp_path / "corpus", "--json").object
    assert explained["teachers"][0]["waivers"] == [granted.object["waiver_id"]]
    with Corpus.open(tmp_path / "corpus", reading=True) as corpus:
        assert corpus.journal.query("select kind from events")[-1] == ("waiver_granted",)


def test_the_command_that_a_refusal_names_is_the_one_that_lifts_it(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    told = next(line for line in planned(tmp_path).stderr.splitlines() if "corpusgen policy waive" in line)
    command = told[told.index("policy waive") :].split()
    assert "--task" in command
    (tmp_path / "letter.txt").write_text("yes")
    filled = {"NAME": "Ms Counsel", "TEXT": "ok", "FILE": str(tmp_path / "letter.txt"), "DATE": NEXT_YEAR}
    words = [filled.get(word, word.strip("'")) for word in command]
    done = corpusgen(*words, "--corpus", tmp_path / "corpus")
    assert done.code == 0, done.stderr
    assert planned(tmp_path).code == 0


@pytest.mark.parametrize(
    ("document", "changes", "said"),
    [
        (PROHIBITED, {"rule": "R04"}, "prohibit"),
        (UNCLEAR, {"terms": "no-such-terms"}, "no-such-terms"),
        (UNCLEAR, {"until": "2020-01-01"}, "2020-01-01"),
        (UNCLEAR, {"evidence": "no-such-letter.txt"}, "--evidence: 'no-such-letter.txt' cannot be read"),
        (UNCLEAR, {"rule": "R99"}, "there is no such rule"),
        (UNCLEAR, {"by": " "}, "--by is empty"),
        (UNCLEAR, {"task": ""}, "--task is empty"),
        (UNCLEAR, {"teacher": ""}, "--teacher is empty"),
        (UNCLEAR, {"evidence": "/dev/null"}, "--evidence: '/dev/null' is no file"),
        (UNCLEAR, {"evidence": "empty.txt"}, "empty.txt' is empty, and shows nothing"),
        (UNCLEAR, {"until": "9999-12-31"}, "more than 5 years from now"),
    ],
)
def test_what_cannot_be_waived_is_refused_and_nothing_is_kept(
    document: dict[str, Any], changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    acme_task(tmp_path, NOWHERE, document)
    (tmp_path / "empty.txt").touch()
    if changes.get("evidence") == "empty.txt":
        changes = {"evidence": str(tmp_path / "empty.txt")}
    refused = waive(tmp_path, **changes)
    assert (refused.code, said in refused.stderr) == (2, True), refused.stderr
    assert waivers(tmp_path) == []


def test_a_prohibition_yields_to_written_authorisation_and_a_waiver_that_names_the_rule(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, PROHIBITED | {"written_authorisation": True})
    assert "written authorisation" in planned(tmp_path).stderr
    unnamed = waive(tmp_path)
    assert (unnamed.code, "name rule R04" in unnamed.stderr) == (2, True)
    unscoped = waive(tmp_path, rule="R04")
    assert (unscoped.code, "name it with --task or --teacher" in unscoped.stderr) == (2, True)
    assert waive(tmp_path, rule="R04", task="words").code == 0
    assert planned(tmp_path).code == 0


def forged(folder: Path, **changes: str) -> None:
    """Make the journal hold another waiver than was granted."""
    with Corpus.open(folder / "corpus") as corpus:
        for name, value in changes.items():
            corpus.journal.run_now(
                lambda one, name=name, value=value: one.execute(  # type: ignore[misc]
                    "update waivers set waiver = json_set(waiver, ?, ?)", (f"$.{name}", value)
                )
            )


def test_an_expired_waiver_lifts_nothing_and_says_when_it_ended(tmp_path: Path) -> None:
    spec, before = acme_task(tmp_path, NOWHERE, UNCLEAR), datetime.now(UTC) - timedelta(days=9)
    (tmp_path / "letter.txt").write_text("yes")
    with Corpus.open(tmp_path / "corpus", clock=lambda: before) as corpus:
        asked = {"terms_ids": ("acme-terms-1",), "rules": (), "task": None, "teacher": None, "by": "Me", "reason": "so"}
        until = TODAY - timedelta(days=1)
        grant(corpus, Asked(**asked, evidence=tmp_path / "letter.txt", until=until), load_task(spec))  # type: ignore[arg-type]
    assert planned(tmp_path).code == 4
    (one,) = waivers(tmp_path)
    assert (one["in_force"], one["days_left"]) == (False, -1)
    assert "expired on" in corpusgen("policy", "waivers", "--corpus", tmp_path / "corpus").stdout


def test_a_waiver_or_review_that_somebody_changed_is_found(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    corpus = tmp_path / "corpus"
    assert waive(tmp_path).code == 0
    (tmp_path / "text.txt").write_text("You may.")
    spec = ("--spec", tmp_path / "task.yaml", "--corpus", corpus)
    assert corpusgen("terms", "review", "acme-terms-1", "--by", "Me", *spec).code == 0
    assert corpusgen("terms", "snapshot", "acme-terms-1", tmp_path / "text.txt", *spec).code == 0
    assert corpusgen("verify", "--corpus", corpus).code == 0
    forged(tmp_path, expires="2999-01-01")
    with Corpus.open(corpus) as opened:
        for sql in (
            "update reviews set review = json_set(review, '$.reviewed', '2999-01-01')",
            "update snapshots set text = 'You may not.'",
        ):
            opened.journal.run_now(lambda one, sql=sql: one.execute(sql))  # type: ignore[misc]
    found = corpusgen("verify", "--corpus", corpus)
    assert found.code == 6
    for said in ("is not what the ledger says was granted", "is not what was signed", "is not the one that was kept"):
        assert said in found.stdout + found.stderr


def test_a_waiver_or_review_that_somebody_wrote_into_the_journal_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR | {"reviewed": "2020-01-01"})
    corpus, review = tmp_path / "corpus", {"terms_id": "acme-terms-1", "reviewed": str(TODAY), "by": "x", "remark": ""}
    assert waive(tmp_path, terms="acme-terms-1").code == 0
    assert planned(tmp_path).code == 0
    forged(tmp_path, expires=str(TODAY + timedelta(days=900)))
    refused = planned(tmp_path)
    assert (refused.code, "R05" in refused.stderr) == (4, True)
    assert "is not what the ledger says was granted, so it does not count; see corpusgen verify" in caplog.text
    assert waive(tmp_path, "--rule", "R05").code == 0
    text = json.dumps(review | {"found_text_sha256": None})
    values = ("acme-terms-1", text, '{"payload": "", "payloadType": "", "signatures": []}', 0)
    with Corpus.open(corpus) as opened:
        sql = "insert into reviews(terms_id, review, envelope, reviewed_us) values(?, ?, ?, ?)"
        opened.journal.run_now(lambda one: one.execute(sql, values))
    refused = planned(tmp_path)
    assert (refused.code, "R02" in refused.stderr) == (4, True)
    assert "review 1 is not what was signed with a key of this corpus" in caplog.text


def test_a_waiver_is_of_the_document_as_it_was_and_counts_again_once_it_is_waived_again(tmp_path: Path) -> None:
    spec = acme_task(tmp_path, NOWHERE, UNCLEAR)
    assert waive(tmp_path).code == 0
    write_terms(tmp_path / "terms.yaml", UNCLEAR | {"version": "2", "conditions": ["only on Sundays"]})
    refused = planned(tmp_path)
    assert (refused.code, "waived for another version of it: w-" in refused.stderr) == (4, True)
    assert "waive again" in corpusgen("policy", "explain", spec, "--corpus", tmp_path / "corpus").stdout
    assert waive(tmp_path).code == 0
    assert planned(tmp_path).code == 0


def test_a_forged_waiver_lifts_no_prohibition(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    assert waive(tmp_path).code == 0
    write_terms(tmp_path / "terms.yaml", PROHIBITED)
    assert planned(tmp_path).code == 4


@pytest.mark.parametrize(("option", "other"), [("task", "another-*"), ("teacher", "openai/*")])
def test_a_waiver_counts_only_where_it_says(option: str, other: str, tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    assert waive(tmp_path, **{option: other}).code == 0
    assert planned(tmp_path).code == 4
    assert waive(tmp_path, **{option: "*"}).code == 0
    assert planned(tmp_path).code == 0


def test_what_hangs_on_a_waiver_is_told_and_taking_it_back_ends_it(tmp_path: Path) -> None:
    spec = acme_task(tmp_path, NOWHERE, UNCLEAR)
    name = waive(tmp_path, "--json").object["waiver_id"]
    corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q")  # nobody answers; what was decided is written down
    (one,) = waivers(tmp_path)
    assert [(hangs["stage"], hangs["subject"], hangs["role"]) for hangs in one["hangs"]] == [
        ("plan", "endpoint/m", "response")
    ]
    assert corpusgen("policy", "unwaive", name, "--corpus", tmp_path / "corpus").code == 0
    assert planned(tmp_path).code == 4
    again = corpusgen("policy", "unwaive", name, "--corpus", tmp_path / "corpus")
    assert (again.code, "was taken back already" in again.stderr) == (2, True)


def test_the_same_waiver_twice_is_one(tmp_path: Path) -> None:
    acme_task(tmp_path, NOWHERE, UNCLEAR)
    first, second = (waive(tmp_path, "--json").object for _ in range(2))
    assert (first, len(waivers(tmp_path))) == (second, 1)


def explained(spec: Path, *more: str) -> Ran:
    return corpusgen("policy", "explain", spec, "--corpus", spec.parent / "corpus", *more)


def test_the_table_names_title_version_clause_grant_rule_and_what_to_do(tmp_path: Path) -> None:
    spec = acme_task(tmp_path, NOWHERE, PROHIBITED | {"written_authorisation": True})
    found = explained(spec)
    assert found.code == 0
    for said in (
        "DENIED",
        "TEACHER endpoint/m (route api, host 127.0.0.1",
        "as response",
        "Acme API Terms, version 1 [acme-terms-1]; outputs for training: prohibited",
        "s. 4.2",
        "R04",
        f"from your file {tmp_path / 'terms.yaml'}",
        "words: Words, CC0-1.0",
        "to do: whoever may accept it (with the provider's written authorisation as evidence)",
        "would pass: embedded/smollm2-135m",
        "terms registry ",
        "Not legal advice",
    ):
        assert said in found.stdout, said


def test_the_table_for_machines_has_each_teacher_and_role_and_the_judge(tmp_path: Path) -> None:
    write_terms(tmp_path / "terms.yaml", UNCLEAR)
    (tmp_path / "judge.md").write_text(
        "---\nname: j\nlicence: CC0-1.0\napi: chat\ninputs: [response]\n---\nuser:\n{response}\n"
    )
    judge = {"teacher": acme(NOWHERE), "prompt": "judge.md"}
    curate = {"judge": judge, "quality": {"judge": {"min_score": 2}}}
    from flow_samples import write_task

    spec = write_task(tmp_path, items=1, terms_files=["terms.yaml"], curate=curate)
    found = explained(spec, "--json").object
    assert [(one["teacher"], one["role"], one["outcome"]) for one in found["teachers"]] == [
        ("scripted/test", "response", "allow"),
        ("endpoint/m", "judge", "needs_waiver"),
        ("endpoint/m", "filter", "needs_waiver"),
    ]
    assert (found["outcome"], found["teachers"][1]["findings"][0]["rule"]) == ("needs_waiver", "R05")
    assert len(found["registry_digest"]) == len(found["policy_digest"]) == 64
    json.dumps(found)


def test_a_day_can_be_named_on_which_terms_were_other(tmp_path: Path) -> None:
    spec = acme_task(tmp_path, NOWHERE, {"effective": "2026-01-01"})
    assert explained(spec, "--json", "--on", "2026-11-20").object["outcome"] == "allow"
    assert explained(spec, "--json", "--on", "2025-12-31").object["outcome"] == "deny"
    assert explained(spec, "--json", "--on", "2027-11-20").object["outcome"] == "needs_waiver"  # read too long ago


@pytest.mark.parametrize(
    ("licence", "known", "train"),
    [
        ("CC0-1.0", True, "allowed"),
        ("Apache-2.0 WITH LLVM-exception", True, "allowed"),
        ("MIT AND CC-BY-4.0", True, None),
        ("MIT OR CC-BY-4.0", True, None),
        ("MIT AND Made-Up-1.0", False, None),
        ("found on the web", False, None),
    ],
)
def test_a_licence_of_several_is_known_where_each_of_them_is(
    licence: str, known: bool, train: str | None, tmp_path: Path
) -> None:
    spec = acme_task(tmp_path, NOWHERE, sources=[{"id": "words", "title": "Words", "licence": licence}])
    (source,) = explained(spec, "--json").object["sources"]
    assert (source["known"], source["train"]) == (known, train)
