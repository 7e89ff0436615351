"""What was erased is not bought again: by a near-duplicate, a worked example, the next item, or a judge that failed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import yaml
from command import corpusgen
from erasure_samples import JUDGE_PROMPT, places
from flow_samples import PROMPT, write_task

from corpusgen.corpus import Corpus
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Kind, Selector
from corpusgen.stages.verifying import verify

NAME = "Zebulon Quackenbush"
LONG = (
    f"{NAME} has bought the old mill by the river and the barn behind it and lives there with three dogs and a parrot"
)


def seeded(folder: Path, *texts: str, **changes: Any) -> Path:
    """A task whose items ``w0``, ``w1``, … say these texts."""
    spec = write_task(folder, items=len(texts), **changes)
    write_rows(folder / "words.jsonl", [{"id": f"w{at}", "word": text} for at, text in enumerate(texts)])
    return spec


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))


def run(spec: Path, corpus: Path) -> dict[str, Any]:
    ran = corpusgen("run", spec, "--corpus", corpus, "-q", "--json")
    assert ran.code == 0, ran.stderr
    found: dict[str, Any] = ran.object
    return found


def out(folder: Path, kind: Kind, *values: str, reason: str = "") -> dict[str, Any]:
    with Corpus.open(folder, erasing=True) as corpus:
        report = erase(corpus, Selector(kind=kind, values=values), by="me", reason=reason)
        assert verify(corpus) == []
    return report


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with Corpus.open(folder, reading=True) as corpus:
        return corpus.journal.query(sql)


def record_of(folder: Path, item: str) -> str:
    return str(rows(folder, f"select lower(hex(record_id)) from records where item_id = '{item}'")[0][0])


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_what_was_dropped_for_nearly_saying_it_is_not_asked_in_its_place(tmp_path: Path) -> None:
    near = {"near": {"threshold": 0.8}}
    spec, corpus = seeded(tmp_path / "task", LONG, f"{LONG} today", "ships", curate=near), tmp_path / "corpus"
    assert run(spec, corpus)["records"] == 2
    assert rows(corpus, "select stage, repeat_of from drops") == [("near", "train:w0")]
    out(corpus, "record", record_of(corpus, "w0"))
    assert places(corpus, "train:w1") == []
    assert run(spec, corpus)["requests"] == 0
    assert places(corpus, NAME) == []


def test_repeats_are_followed_from_one_to_the_next(tmp_path: Path) -> None:
    spec, corpus = seeded(tmp_path / "task", "a", "b", "c", "d"), tmp_path / "corpus"
    run(spec, corpus)
    with Corpus.open(corpus) as opened:
        opened.journal.run_now(
            lambda writing: writing.connection.executemany(
                "insert into drops(run_id, stage, item_id, reason, repeat_of)"
                " select run_id, 'near', ?, 'nearly', ? from runs",
                [("train:x2", "train:x1"), ("train:x1", "train:w1")],
            )
        )
    out(corpus, "source", "words#w1")
    write_rows(tmp_path / "task" / "words.jsonl", [{"id": name, "word": f"a {name}"} for name in ("x1", "x2", "w9")])
    assert run(spec, corpus)["requests"] == 1
    assert rows(corpus, "select count(*) from records where item_id like 'x%'") == [(0,)]


# --- seed files -------------------------------------------------------------------------------------------------------


def test_the_next_item_that_names_it_does_not_take_its_place(tmp_path: Path) -> None:
    spec = seeded(tmp_path / "task", f"{NAME} at sea", f"{NAME} at home", "ships", asking={"limit": 1})
    corpus = tmp_path / "corpus"
    run(spec, corpus)
    report = out(corpus, "subject", NAME)
    told = {"where": "seed file words.jsonl", "of": "words"}
    assert report["kept"] == [told | {"why": "still holds it in 2 items, not asked about again; clean it"}]
    run(spec, corpus)
    assert rows(corpus, "select item_id from records") == [("w2",)]
    assert places(corpus, NAME) == []
    assert out(corpus, "subject", NAME)["erasure_id"] is None


def test_a_seed_file_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    spec, corpus = seeded(tmp_path / "task", NAME, "ships"), tmp_path / "corpus"
    run(spec, corpus)
    (tmp_path / "task" / "words.jsonl").unlink()
    (told,) = out(corpus, "subject", NAME)["kept"]
    assert told["where"] == "seed file words.jsonl"
    assert told["why"].startswith("was not found")


def test_a_prompt_that_says_it_is_told(tmp_path: Path) -> None:
    spec, corpus = seeded(tmp_path / "task", "a", "b"), tmp_path / "corpus"
    (tmp_path / "task" / "prompt.md").write_text(PROMPT + f"\nIn the words of {NAME}.\n")
    run(spec, corpus)
    report = out(corpus, "subject", NAME)
    assert report["records"] == 2
    assert [(one["where"], one["why"]) for one in report["kept"]] == [("prompt prompt.md", "still holds it; clean it")]


# --- worked examples --------------------------------------------------------------------------------------------------


def with_examples(folder: Path) -> Path:
    """Two worked examples, of which the first one holds the name."""
    spec = seeded(folder, "a", "b")
    write_rows(folder / "ex.jsonl", [{"id": "e1", "word": NAME, "gold": "a"}, {"id": "e2", "word": "x", "gold": "b"}])
    front = "inputs: [word]\nexample: 'Q: {word} A: {answer}'"
    (folder / "prompt.md").write_text(PROMPT.replace("inputs: [word]", front).replace("Say", "{examples}\nSay"))
    fields = yaml.safe_load(spec.read_text())
    fields["examples"] = {"path": "ex.jsonl", "source": "ex", "gold": "gold"}
    fields["sources"].append({"id": "ex", "title": "Examples", "licence": "CC0-1.0"})
    spec.write_text(yaml.safe_dump(fields))
    return spec


def test_a_worked_example_that_holds_it_is_sent_no_more_and_the_other_one_is(tmp_path: Path) -> None:
    spec, corpus = with_examples(tmp_path / "task"), tmp_path / "corpus"
    run(spec, corpus)
    (told,) = out(corpus, "subject", NAME)["kept"]
    assert (told["where"], "in 1 item" in told["why"]) == ("examples file ex.jsonl", True)
    write_rows(tmp_path / "task" / "words.jsonl", [{"id": "n1", "word": "new"}])
    assert run(spec, corpus)["requests"] == 0
    assert places(corpus, NAME) == []
    write_rows(tmp_path / "task" / "ex.jsonl", [{"id": "e2", "word": "x", "gold": "b"}])
    assert run(spec, corpus)["requests"] == 1


def test_where_the_examples_are_not_found_all_that_stood_beside_it_are_sent_no_more(tmp_path: Path) -> None:
    spec, corpus = with_examples(tmp_path / "task"), tmp_path / "corpus"
    run(spec, corpus)
    kept = (tmp_path / "task" / "ex.jsonl").read_bytes()
    (tmp_path / "task" / "ex.jsonl").unlink()
    told = {one["where"] for one in out(corpus, "subject", NAME)["kept"]}
    assert told == {"examples file ex.jsonl", "examples file: ex#e1, ex#e2"}
    (tmp_path / "task" / "ex.jsonl").write_bytes(kept)
    write_rows(tmp_path / "task" / "words.jsonl", [{"id": "n1", "word": "new"}])
    assert run(spec, corpus)["requests"] == 0


def test_items_that_hold_it_themselves_leave_the_examples_beside_them_alone(tmp_path: Path) -> None:
    spec, corpus = with_examples(tmp_path / "task"), tmp_path / "corpus"
    run(spec, corpus)
    (tmp_path / "task" / "ex.jsonl").rename(tmp_path / "task" / "ex.moved")
    report = out(corpus, "record", record_of(corpus, "w0"))
    assert (report["records"], report["kept"]) == (1, [])
    (tmp_path / "task" / "ex.moved").rename(tmp_path / "task" / "ex.jsonl")
    write_rows(tmp_path / "task" / "words.jsonl", [{"id": "w0", "word": "a"}, {"id": "n1", "word": "new"}])
    assert run(spec, corpus)["requests"] == 1


# --- calls that failed ------------------------------------------------------------------------------------------------


def test_a_call_in_which_a_judge_failed_at_it_keeps_no_key_and_no_words(tmp_path: Path) -> None:
    judge = {"name": "scripted/judge", "script": "judge.yaml", "parameters": {"max_tokens": 64}, "free": True}
    curate = {"judge": {"teacher": judge, "prompt": "judge.md"}, "quality": {"judge": {"min_score": 1}}}
    spec, corpus = seeded(tmp_path / "task", "a river", "a mill", curate=curate), tmp_path / "corpus"
    (tmp_path / "task" / "judge.md").write_text(JUDGE_PROMPT)
    rule = {"contains": "a mill", "error": {"kind": "refused", "status": 400, "message": "cannot judge a mill"}}
    answers = {"answers": [rule], "default": {"text": '{"why": "so", "score": 4}'}}
    (tmp_path / "task" / "judge.yaml").write_text(json.dumps(answers))
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 5
    ((key,),) = rows(corpus, "select hex(request_key) from calls where error is not null")
    report = out(corpus, "record", record_of(corpus, "w1"))
    assert (report["records"], report["failed_calls"]) == (1, 1)
    ((after, error),) = rows(corpus, "select hex(request_key), error from calls where error is not null")
    assert (after != key, error) == (True, "RequestRefused")
    assert rows(corpus, "select * from drops") == []
    assert places(corpus, "a mill") == []


def test_another_run_that_failed_at_it_keeps_neither_key_nor_error_nor_drop(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    run(seeded(tmp_path / "a", "a river", "a mill"), corpus)
    second = seeded(tmp_path / "b", "a river", "a mill", name="second")
    rule = {"contains": "a mill", "error": {"kind": "refused", "status": 400, "message": "what is a mill?"}}
    (tmp_path / "b" / "script.yaml").write_text(json.dumps({"answers": [rule], "default": {"text": "hello"}}))
    assert corpusgen("run", second, "--corpus", corpus, "-q").code == 5
    ((key,),) = rows(corpus, "select hex(request_key) from calls where error is not null")
    with Corpus.open(corpus) as opened:
        first = opened.journal.query(
            "select lower(hex(record_id)) from records where dataset = 'words' and item_id = 'w1'"
        )
    assert out(corpus, "record", first[0][0])["failed_calls"] == 1
    assert rows(corpus, "select error from calls where error is not null") == [("RequestRefused",)]
    assert rows(corpus, f"select 1 from calls where hex(request_key) = '{key}'") == []
    assert rows(corpus, "select * from drops") == []
    assert places(corpus, "what is a mill") == []


def test_a_run_that_only_failed_at_it_keeps_no_key_of_it(tmp_path: Path) -> None:
    spec, corpus = seeded(tmp_path / "task", NAME, "ships"), tmp_path / "corpus"
    refused = {"kind": "refused", "status": 400, "message": f"who is {NAME}?"}
    script = {"answers": [{"contains": NAME, "error": refused}], "default": {"text": "hello"}}
    (tmp_path / "task" / "script.yaml").write_text(json.dumps(script))
    assert corpusgen("run", spec, "--corpus", corpus, "-q").code == 5
    failed = "select request_key from calls where error is not null"
    before = rows(corpus, failed)
    report = out(corpus, "subject", NAME)
    assert (report["records"], report["failed_calls"]) == (0, 1)
    assert rows(corpus, failed) != before
    (tmp_path / "task" / "script.yaml").write_text("default: {text: hello}\n")
    run(spec, corpus)
    assert rows(corpus, "select distinct item_id from records") == [("w1",)]


# --- words of earlier erasures ----------------------------------------------------------------------------------------


def test_the_reason_of_an_earlier_erasure_is_cut_and_its_report_signed_anew(tmp_path: Path) -> None:
    spec, corpus = seeded(tmp_path / "task", "a river", "a mill"), tmp_path / "corpus"
    run(spec, corpus)
    assert corpusgen("select", "words", "--corpus", corpus).code == 0
    out(corpus, "record", record_of(corpus, "w0"), reason=f"{NAME} asked us to")
    assert places(corpus, NAME)
    report = out(corpus, "subject", NAME)
    assert (report["erasure_id"], report["kept"]) == (2, [])
    assert places(corpus, NAME) == []
    kept = json.loads((corpus / "erasures" / "1.json").read_text())
    assert (kept["report"]["reason"], kept["report"]["datasets"]) == ("(erased)", ["words-1"])
    assert json.loads(base64.b64decode(kept["envelope"]["payload"])) == kept["report"]
