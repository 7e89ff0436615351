"""Fallback chains and mixtures, through the commands a person types."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import corpusgen
from flow_samples import open_corpus, write_task
from several_samples import PRICED, failing, saying, write_several

from corpusgen.pipeline import generate
from corpusgen.stages.loading import load_task
from corpusgen.stages.task import first_asked

REFUSING = {
    "answers": [{"contains": "word 0001", "text": "I will not.", "finish_reason": "content_filter"}],
    "default": {"text": "yes"},
}
REFUSING_OUTRIGHT = {
    "answers": [{"contains": "word 0001", "error": {"kind": "refused", "message": "not this"}}],
    "default": {"text": "yes"},
}


def rows(corpus: Path, sql: str) -> list[dict[str, Any]]:
    ran = corpusgen("query", sql, "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr
    found: list[dict[str, Any]] = ran.object["rows"]
    return found


def sound(corpus: Path) -> bool:
    return corpusgen("verify", "--corpus", corpus).code == 0


BY_ROLE = "select teacher, teacher_role, count(*) as n from records group by all order by 1"


@pytest.mark.parametrize("first", [REFUSING, REFUSING_OUTRIGHT], ids=["as an answer", "as an error"])
def test_one_refused_prompt_goes_to_the_next_teacher_and_the_record_says_so(
    first: dict[str, Any], tmp_path: Path
) -> None:
    spec, corpus = write_several(tmp_path, {"first": {**first}, "second": saying("well")}), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert rows(corpus, BY_ROLE) == [
        {"teacher": "scripted/first", "teacher_role": "primary", "n": 5},
        {"teacher": "scripted/second", "teacher_role": "fallback", "n": 1},
    ]
    (passed,) = rows(corpus, "select stage, item_id, detail from drops")
    assert (passed["stage"], passed["item_id"]) == ("passed on by scripted/first:train", "w0001")
    assert passed["detail"] in ("I will not.", "not this")
    assert {"teacher": "scripted/second", "role": "response:fallback:train", "n": 1} in rows(
        corpus, "select teacher, role, count(*) as n from calls group by all"
    )
    assert sound(corpus)


def test_a_refusal_that_was_paid_for_stays_stored_and_its_cost_stands_on_the_record(tmp_path: Path) -> None:
    scripts = {"first": {**REFUSING, "teacher": PRICED}, "second": saying("well", **PRICED)}
    spec, corpus = write_several(tmp_path, scripts, budget={"usd": 1}), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    (booked,) = rows(corpus, "select sum(microusd) as n, count(*) as calls from calls")
    (on_records,) = rows(corpus, "select sum(cost_microusd) as n from records")
    assert (booked["n"], booked["calls"]) == (on_records["n"], 7)
    (fallen,) = rows(
        corpus, "select len(request_keys) as n, cost_microusd from records where teacher_role = 'fallback'"
    )
    assert fallen["n"] == 2
    balances = corpusgen("budget", "show", "--corpus", corpus, "--json").object["balances"]
    assert {"teacher:scripted/first", "teacher:scripted/second"} <= {one["scope"] for one in balances}
    assert sound(corpus)


def test_a_resumed_chain_asks_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    spec, corpus = write_several(tmp_path, {"first": {**REFUSING}, "second": saying("well")}), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    again = corpusgen("run", spec, "--corpus", corpus, "-q", "--json").object
    assert (again["requests"], again["known"]) == (0, 6)


@pytest.mark.parametrize("error", [{"kind": "not_sent"}, {"kind": "refused", "status": 401}], ids=["away", "no key"])
def test_a_teacher_that_is_away_is_passed_over_and_not_tried_for_every_prompt(
    error: dict[str, Any], tmp_path: Path
) -> None:
    scripts = {"first": failing(**error), "second": saying("well")}
    spec, corpus = write_several(tmp_path, scripts, items=40), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert rows(corpus, BY_ROLE) == [{"teacher": "scripted/second", "teacher_role": "fallback", "n": 40}]
    (tried,) = rows(corpus, "select count(*) as n from calls where teacher = 'scripted/first'")
    assert tried["n"] < 40 * 2


def test_when_nobody_can_be_asked_the_run_ends_and_goes_on_later(tmp_path: Path) -> None:
    scripts = {"first": failing("refused", status=401), "second": failing("refused", status=403)}
    spec, corpus = write_several(tmp_path, scripts), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 5
    (tmp_path / "second.yaml").write_text("default: {text: well}\n")
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0


def test_a_teacher_that_bills_beyond_its_bound_is_asked_no_more_and_its_answer_is_kept(tmp_path: Path) -> None:
    greedy = {"default": {"text": "a", "usage": {"input_tokens": 5, "output_tokens": 10_000}}}
    scripts = {"first": {**greedy, "teacher": {"in_flight": 1}}, "second": saying("well")}
    spec, corpus = write_several(tmp_path, scripts, items=4), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert {one["teacher"]: one["n"] for one in rows(corpus, BY_ROLE)} == {"scripted/first": 1, "scripted/second": 3}


def test_a_mixture_shares_the_prompts_by_weight_whatever_their_order(tmp_path: Path) -> None:
    scripts = {"one": saying("a", weight=3), "two": saying("b", weight=1)}
    spec, corpus = write_several(tmp_path, scripts, items=200), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    counted = {one["teacher"]: one["n"] for one in rows(corpus, BY_ROLE)}
    assert 130 <= counted["scripted/one"] <= 170
    task = load_task(spec).spec
    asked = Counter(first_asked(task, f"w{at:04}", 0) for at in reversed(range(200)))
    assert (counted["scripted/one"], counted["scripted/two"]) == (asked[0], asked[1])
    assert {one["teacher_role"] for one in rows(corpus, BY_ROLE)} == {"mixture"}


def test_only_a_teacher_of_weight_nought_takes_what_a_mixture_refuses(tmp_path: Path) -> None:
    scripts = {
        "one": {**failing("refused"), "teacher": {"weight": 1}},
        "two": saying("b", weight=1),
        "last": saying("c", weight=0),
    }
    spec, corpus = write_several(tmp_path, scripts, items=40), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    found = {(one["teacher"], one["teacher_role"]): one["n"] for one in rows(corpus, BY_ROLE)}
    assert set(found) == {("scripted/two", "mixture"), ("scripted/last", "fallback")}
    assert sum(found.values()) == 40


def test_the_plan_tells_each_teachers_part_and_keeps_within_it(tmp_path: Path) -> None:
    scripts = {"first": {**REFUSING, "teacher": PRICED}, "second": saying("well", **PRICED)}
    spec, corpus = write_several(tmp_path, scripts, budget={"usd": 1}), tmp_path / "corpus"
    figures = corpusgen("plan", spec, "--corpus", corpus, "--json").object
    first, second = figures["teachers"]
    assert (first["role"], second["role"]) == ("primary", "fallback")
    assert (first["requests_range"]["low"], second["requests_range"]["likely"]) == (6, 0)
    assert second["requests_range"]["high"] >= 6
    assert figures["microusd"]["high"] == first["microusd"]["high"] + second["microusd"]["high"]
    told = corpusgen("plan", spec, "--corpus", corpus).stdout
    assert "fallback  scripted/second: up to 6 answers" in told
    done = corpusgen("run", spec, "--corpus", corpus, "-q", "--plan", "--json").object["plan"]
    assert done["requests"]["within"]
    assert done["money"]["within"]


def test_status_and_the_report_speak_of_each_teacher(tmp_path: Path) -> None:
    spec, corpus = write_several(tmp_path, {"first": {**REFUSING}, "second": saying("well")}), tmp_path / "corpus"
    page = tmp_path / "report.html"
    assert corpusgen("distill", spec, "--corpus", corpus, "-q", "--report", page).code == 0
    told = corpusgen("status", "--corpus", corpus).stdout
    assert "teacher scripted/first (primary): 6 calls, 6 answers" in told
    assert "teacher scripted/second (fallback): 1 call, 1 answer" in told
    assert "1 passed on by scripted/first:train: content_filter" in told
    assert "scripted/second" in page.read_text()


def test_a_dataset_of_several_teachers_is_sealed_with_all_of_them_on_its_card(tmp_path: Path) -> None:
    spec, corpus = write_several(tmp_path, {"first": {**REFUSING}, "second": saying("well")}), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert corpusgen("select", "words", "--corpus", corpus).code == 0
    sealed = corpusgen("seal", "words", "--spec", spec, "--corpus", corpus, "--json")
    assert sealed.code == 0, sealed.stderr
    card = (Path(sealed.object["folder"]) / "README.md").read_text()
    assert "scripted/first" in card
    assert "scripted/second" in card


def test_a_fallback_that_the_terms_deny_refuses_the_run_at_its_line_before_anything_is_sent(tmp_path: Path) -> None:
    stranger = {"name": "endpoint/x", "base_url": "http://127.0.0.1:9/v1", "provider": "nobody", "route": "api"}
    scripts = {"first": saying("a"), "second": {**saying("b"), "teacher": stranger | {"script": None}}}
    spec, corpus = write_several(tmp_path, scripts), tmp_path / "corpus"
    ran = corpusgen("run", spec, "--corpus", corpus, "-q")
    assert ran.code == 4
    line = int(ran.stderr.partition("task.yaml:")[2].partition(":")[0])
    assert "endpoint/x" in spec.read_text().splitlines()[line - 1]
    assert rows(corpus, "select count(*) as n from calls") == [{"n": 0}]


CONTRADICTIONS = {
    "kind": ({"kind": "label", "labels": {"names": ["a", "b"]}}, {}, "kind: label takes one teacher"),
    "lane": ({"asking": {"order": "file", "lane": "batch"}}, {}, "batch is for one teacher"),
    "weights": ({}, {"weight": 1}, "needs weight, as the others have"),
    "nobody": ({}, {"weight": 0, "also": 0}, "one weight must be more than 0"),
    "twice": ({}, {"name": "scripted/second"}, "stands at teachers.0 already"),
}


@pytest.mark.parametrize(("changes", "first", "said"), CONTRADICTIONS.values(), ids=list(CONTRADICTIONS))
def test_several_teachers_that_cannot_be_are_refused_with_their_line(
    changes: dict[str, Any], first: dict[str, Any], said: str, tmp_path: Path
) -> None:
    also = {"weight": first.pop("also")} if "also" in first else {}
    spec = write_several(tmp_path, {"first": saying("a", **first), "second": saying("b", **also)}, **changes)
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert said in ran.stderr
    assert "task.yaml:" in ran.stderr


def test_the_weight_of_a_single_teacher_is_refused(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"only": saying("a", weight=0)})
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert (ran.code, "is a share among several teachers" in ran.stderr) == (2, True)


def test_a_single_teachers_records_are_as_before_but_for_the_role(tmp_path: Path) -> None:
    spec, corpus = write_task(tmp_path, items=2), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    assert rows(corpus, BY_ROLE) == [{"teacher": "scripted/test", "teacher_role": "primary", "n": 2}]
    assert len(corpusgen("plan", spec, "--corpus", corpus, "--json").object["teachers"]) == 1


def test_each_teacher_of_a_spec_is_checked(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"first": saying("a"), "second": saying("b")})
    found = corpusgen("teachers", "check", spec, "--json").object["teachers"]
    assert [one["teacher"] for one in found] == ["scripted/first", "scripted/second"]


def test_two_processes_pass_a_prompt_on_once(tmp_path: Path) -> None:
    slow = [{"contains": "word", "text": "no", "finish_reason": "content_filter", "latency_s": 0.05}]
    scripts = {"first": {"answers": slow}, "second": saying("well")}
    spec, corpus = write_several(tmp_path, scripts, items=12), tmp_path / "corpus"
    command = [sys.executable, "-m", "corpusgen", "run", str(spec), "--corpus", str(corpus), "-q"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[1] == b""
        assert process.returncode == 0
    assert rows(corpus, "select count(*) as n, count(distinct request_key) as keys from calls") == [
        {"n": 24, "keys": 24}
    ]
    assert rows(corpus, BY_ROLE) == [{"teacher": "scripted/second", "teacher_role": "fallback", "n": 12}]
    assert sound(corpus)


def test_a_lost_shard_of_several_teachers_is_written_again_with_the_same_bytes(tmp_path: Path) -> None:
    spec, corpus = write_several(tmp_path, {"first": {**REFUSING}, "second": saying("well")}), tmp_path / "corpus"
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 0
    (shard,) = corpus.glob("shards/*/*.parquet")
    before = shard.read_bytes()
    shard.unlink()
    assert corpusgen("verify", "--repair", "--corpus", corpus).code == 0
    assert shard.read_bytes() == before


async def test_generate_passes_a_refused_prompt_on_as_well(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"first": {**REFUSING_OUTRIGHT}, "second": saying("well")})
    with open_corpus(tmp_path / "corpus") as corpus:
        async with generate(spec, corpus) as records:
            found = Counter([record.teacher_role async for record in records])
    assert found == {"primary": 5, "fallback": 1}
