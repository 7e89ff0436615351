"""Seeds that are conversations, from the file to what each wire format sends."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import corpusgen
from flow_samples import write_task
from test_several_teachers import rows

from corpusgen.corpus import utc_now
from corpusgen.prompting.prompts import Item
from corpusgen.stages.loading import load_task
from corpusgen.stages.task import Task, connect, request_for
from corpusgen.teachers.reading import body_of

PROMPT = "---\nname: chat\ninputs: [messages]\n---\nsystem:\nBe brief.\nmessages:\n"
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "What swims?"},
    {"role": "assistant", "content": "A trout."},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "flies?"}]},
]
SENT = [("user", "What swims?"), ("assistant", "A trout."), ("user", "And flies?")]


def write_talks(
    folder: Path, talks: list[Any], *, suffix: str = ".jsonl", prompt: str = PROMPT, **changes: Any
) -> Path:
    path = f"talks{suffix}"
    seeds = {"train": {"path": path, "source": "words"}}
    spec = write_task(folder, items=2, **{"input": "messages", "seeds": seeds, **changes})
    (folder / "prompt.md").write_text(prompt)
    found = [{"id": f"t{at}", "messages": talk} for at, talk in enumerate(talks)]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(found), folder / path)
    elif suffix == ".csv":
        with (folder / path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["id", "messages"], *([row["id"], json.dumps(row["messages"])] for row in found)])
    else:
        (folder / path).write_bytes(b"\n".join(map(orjson.dumps, found)))
    return spec


def first_item(spec: Path) -> tuple[Task, Item]:
    task = load_task(spec)
    return task, next(iter(task.prompter.items("train")))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_conversation_stands_where_the_prompt_has_room_for_it(suffix: str, tmp_path: Path) -> None:
    plain = [{**turn, "content": text} for turn, (_, text) in zip(TALK, SENT, strict=True)]
    _, item = first_item(write_talks(tmp_path, [plain if suffix == ".parquet" else TALK], suffix=suffix))
    assert [(turn.role, turn.content) for turn in item.messages] == [("system", "Be brief."), *SENT]
    assert item.input == "user: What swims?\n\nassistant: A trout.\n\nuser: And flies?"


def test_a_run_asks_with_the_whole_conversation_and_keeps_it(tmp_path: Path) -> None:
    spec, corpus = write_talks(tmp_path, [TALK, [{"role": "user", "content": "Hello"}]]), tmp_path / "corpus"
    ran = corpusgen("run", spec, "--corpus", corpus, "-q")
    assert ran.code == 0, ran.stderr
    assert [one["n"] for one in rows(corpus, "select len(messages) as n from records order by 1")] == [2, 4]


HOSTED: dict[str, dict[str, Any]] = {
    "chat": {"name": "openai/gpt-4.1"},
    "responses": {"name": "openai/gpt-4.1", "api": "responses"},
    "messages": {"name": "anthropic/claude-haiku-4-5"},
    "endpoint": {"name": "vllm/m", "base_url": "http://127.0.0.1:9/v1"},
}


@pytest.mark.parametrize("teacher", HOSTED.values(), ids=list(HOSTED))
def test_every_wire_format_sends_every_turn(teacher: dict[str, Any], tmp_path: Path) -> None:
    task, item = first_item(write_talks(tmp_path, [TALK], teacher={"script": None, "free": True, **teacher}))
    request = request_for(task, connect(task, utc_now, sending=False).card, item, 0)
    sent = orjson.loads(body_of(request))
    turns = sent.get("messages") or sent["input"]
    assert [text for _, text in SENT] == [turn["content"] for turn in turns if turn["role"] != "system"]
    assert b"Be brief." in body_of(request)


def test_a_block_may_follow_the_conversation(tmp_path: Path) -> None:
    prompt = PROMPT.replace("system:\nBe brief.\n", "") + "user:\nGrade the last answer of:\n{messages}\n"
    _, item = first_item(write_talks(tmp_path, [TALK[:2]], prompt=prompt))
    assert [turn.role for turn in item.messages] == ["user", "assistant", "user"]
    assert item.messages[-1].content.endswith("assistant: A trout.")


PICTURE = {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}
WRONG: dict[str, tuple[Any, str]] = {
    "image": ([{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}], "turn 1 holds image_url"),
    "audio": ([{"role": "user", "content": [{"type": "input_audio"}]}], "turn 1 holds input_audio"),
    "spoken": ([{"role": "user", "content": "a", "audio": {"id": "x"}}], "turn 1 holds audio"),
    "tool": ([{"role": "tool", "content": "a"}], "turn 1 has role 'tool'; roles are system, user, assistant"),
    "calls": ([{"role": "assistant", "tool_calls": [{}]}], "turn 1 holds tool_calls"),
    "answered": (TALK[:2], "ends with a turn of the assistant"),
    "late system": ([TALK[0], {"role": "system", "content": "x"}], "turn 2 is system text"),
    "only system": ([{"role": "system", "content": "x"}], "has system text only"),
    "empty": ([{"role": "user", "content": " "}], "turn 1 is empty"),
    "nothing": ([], "must be a list of turns"),
    "text": ("hello", "must be a list of turns in JSON"),
    "no fields": (["hello"], "turn 1 must be fields"),
    "number": ([{"role": "user", "content": 7}], "turn 1 has content 7"),
}


@pytest.mark.parametrize(("talk", "said"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_asked_is_refused_with_file_row_and_column(talk: Any, said: str, tmp_path: Path) -> None:
    spec = write_talks(tmp_path, [TALK, talk])
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert f"talks.jsonl:2: messages: row 2: {said}" in ran.stderr


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (PROMPT.replace("[messages]", "[text]"), "add messages to inputs"),
        (f"{PROMPT}Some text\n", "put other text into a block of its own"),
        (f"{PROMPT}messages:\n", "one messages: block is enough"),
        (f"{PROMPT}assistant:\nNo\n", "the last block must be user: or messages:"),
    ],
)
def test_a_prompt_without_room_is_refused(prompt: str, said: str, tmp_path: Path) -> None:
    ran = corpusgen("plan", write_talks(tmp_path, [TALK], prompt=prompt), "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert said in ran.stderr
