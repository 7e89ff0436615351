"""Answers that are held to a JSON schema, through the commands a person types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import corpusgen
from flow_samples import PROMPT, write_task
from several_samples import PRICED, SCHEMA, write_several
from test_several_teachers import rows, sound

from corpusgen.corpus import utc_now
from corpusgen.prompting.prompts import Item
from corpusgen.stages.loading import load_task
from corpusgen.stages.task import Task, connect, request_for

FITS = '{"kind": "bird"}'
MENDING = {
    "answers": [{"contains": "That does not do", "text": FITS}, {"contains": "word 0001", "text": "a bird"}],
    "default": {"text": f"```json\n{FITS}\n```"},
}
HOPELESS: dict[str, Any] = {"answers": [{"contains": "word 0001", "text": '{"kind": 7}'}], "default": {"text": FITS}}
HOPELESS["answers"].append({"contains": "That does not do", "text": '{"kind": 8}'})


def run(folder: Path, script: dict[str, Any], **changes: Any) -> Path:
    spec = write_several(folder, {"one": script}, items=4, **{"answer_schema": SCHEMA, **changes})
    ran = corpusgen("run", spec, "--corpus", folder / "corpus", "-q")
    assert ran.code == 0, ran.stderr
    return folder / "corpus"


def test_an_answer_that_fits_is_kept_as_json_even_in_a_fence(tmp_path: Path) -> None:
    corpus = run(tmp_path, MENDING)
    found = rows(corpus, "select distinct structured, verdicts[1].check as said, verdicts[1].kept as kept from records")
    assert found == [{"structured": '{"kind":"bird"}', "said": "schema", "kept": True}]


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_both_are_paid_and_named(tmp_path: Path) -> None:
    corpus = run(tmp_path, {**MENDING, "teacher": PRICED}, budget={"usd": 1})
    assert rows(corpus, "select count(*) as n from calls") == [{"n": 5}]
    sql = "select len(request_keys) as n, response, len(messages) as turns from records where len(request_keys) > 1"
    assert rows(corpus, sql) == [{"n": 2, "response": FITS, "turns": 1}]
    booked, recorded = (rows(corpus, f"select {sql}")[0]["n"] for sql in ("sum(microusd) as n from calls", COSTS))
    assert booked == recorded
    assert sound(corpus)


COSTS = "sum(cost_microusd) as n from records"


def test_the_second_turn_carries_the_answer_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    script: dict[str, Any] = {"default": {"text": FITS}}
    script["answers"] = [{"contains": "it is not JSON", "text": FITS}, {"contains": "word", "text": "a bird"}]
    corpus = run(tmp_path, script)
    assert rows(corpus, "select count(structured) as n from records") == [{"n": 4}]


def test_what_fits_not_even_then_is_kept_as_failed_and_left_out_of_datasets(tmp_path: Path) -> None:
    corpus = run(tmp_path, HOPELESS)
    (failed,) = rows(
        corpus, "select response, structured, verdicts[1].reason as why from records where not verdicts[1].kept"
    )
    assert failed == {"response": '{"kind": 8}', "structured": None, "why": "kind: 8 is not of type 'string'"}
    chosen = corpusgen("select", "words", "--corpus", corpus, "--json").object
    assert (chosen["rows"], chosen["funnel"]["failed schema"]) == (3, 1)
    assert rows(corpus, "select stage, item_id, reason from drops") == [
        {"stage": "schema:train", "item_id": "w0001", "reason": "does not fit"}
    ]
    again = corpusgen("run", tmp_path / "task.yaml", "--corpus", corpus, "-q", "--json").object
    assert again["requests"] == 0


def test_a_truncated_answer_is_told_to_be_briefer(tmp_path: Path) -> None:
    script: dict[str, Any] = {"answers": [{"contains": "be briefer", "text": FITS}]}
    script["default"] = {"text": '{"kind": "bi', "finish_reason": "length"}
    assert rows(run(tmp_path, script), "select count(structured) as n from records") == [{"n": 4}]


def test_a_refusal_is_not_argued_with(tmp_path: Path) -> None:
    corpus = run(tmp_path, {"default": {"text": "no", "finish_reason": "content_filter"}})
    assert rows(corpus, "select count(*) as n from calls") == [{"n": 4}]


def test_a_lost_shard_is_written_again_with_the_same_bytes(tmp_path: Path) -> None:
    corpus = run(tmp_path, MENDING)
    (shard,) = corpus.glob("shards/*/*.parquet")
    before = shard.read_bytes()
    shard.unlink()
    assert corpusgen("verify", "--repair", "--corpus", corpus).code == 0
    assert shard.read_bytes() == before


def test_the_plan_reckons_with_a_second_turn_for_every_answer(tmp_path: Path) -> None:
    script = {"default": {"text": "never"}, "teacher": PRICED}
    spec = write_several(tmp_path, {"one": script}, items=20, answer_schema=SCHEMA, budget={"usd": 1})
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q", "--plan", "--json")
    plan = ran.object["plan"]
    assert plan["requests"]["actual"] == 40
    assert plan["requests"]["within"]
    assert plan["money"]["within"]


def of_teacher(folder: Path, **teacher: Any) -> tuple[Task, Item]:
    chosen = {"script": None, "free": True, **teacher}
    task = load_task(write_task(folder, items=1, teacher=chosen, answer_schema=SCHEMA))
    return task, next(iter(task.prompter.items("train")))


@pytest.mark.parametrize(
    ("name", "in_prompt"),
    [("openai/gpt-4.1", False), ("vllm/some-model", False), ("deepseek/deepseek-v4-flash", True)],
)
def test_a_server_that_takes_no_schema_is_told_it_in_the_prompt(name: str, in_prompt: bool, tmp_path: Path) -> None:
    own = {"base_url": "http://127.0.0.1:9/v1"} if name.startswith("vllm") else {}
    task, item = of_teacher(tmp_path, name=name, **own)
    request = request_for(task, connect(task, utc_now, sending=False).card, item, 0)
    assert request.schema == SCHEMA
    assert (json.dumps(SCHEMA["required"]).replace(" ", "") in request.messages[-1].content) is in_prompt


def test_a_schema_may_stand_in_a_file_and_another_schema_is_another_task(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps(SCHEMA))
    spec = write_several(tmp_path, {"one": MENDING}, answer_schema_file="answer.json")
    before = load_task(spec)
    assert before.schema == SCHEMA
    (tmp_path / "answer.json").write_text("true")
    assert load_task(spec).identity != before.identity


UNSOUND: dict[str, tuple[dict[str, Any], str, str]] = {
    "type": ({"answer_schema": {"properties": {"a": {"type": "strin"}}}}, "strin", "is no JSON schema"),
    "elsewhere": ({"answer_schema": {"$ref": "http://example.com/x"}}, "example.com", "only its own parts"),
    "circle": ({"answer_schema": {"$ref": "#"}}, "answer_schema", "cannot be used"),
    "pattern": ({"answer_schema": {"type": "string", "pattern": "(?=a)b"}}, "pattern", "no regular expression of RE2"),
    "no file": ({"answer_schema_file": "gone.json"}, "gone.json", "cannot be read"),
    "not json": ({"answer_schema_file": "task.yaml"}, "answer_schema_file", "is not JSON"),
    "both": ({"answer_schema": SCHEMA, "answer_schema_file": "x"}, "answer_schema_file", "remove one"),
}


@pytest.mark.parametrize(("changes", "stands", "said"), UNSOUND.values(), ids=list(UNSOUND))
def test_what_is_no_schema_is_refused_at_its_line(
    changes: dict[str, Any], stands: str, said: str, tmp_path: Path
) -> None:
    spec = write_several(tmp_path, {"one": MENDING}, **changes)
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert said in ran.stderr
    line = int(ran.stderr.partition("task.yaml:")[2].partition(":")[0])
    assert stands in spec.read_text().splitlines()[line - 1]


def test_a_completion_cannot_be_held_to_a_schema(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"one": MENDING}, answer_schema=SCHEMA)
    (tmp_path / "prompt.md").write_text(PROMPT.replace("api: chat", "api: completion"))
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "write api: chat" in ran.stderr
