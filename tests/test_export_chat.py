"""The chat export: rows a trainer reads as they are, nothing truncated among them, and a file that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conversation_samples import CHAT_CALL, SAID, TOOLS, conversations
from hypothesis import given
from record_samples import sample_record, sample_records

from corpusgen.errors import CorpusDamaged, CorpusUnwritable, UsageError
from corpusgen.export.chat import SCHEMA, SCHEMA_WITH_TOOLS, export_chat
from corpusgen.export.conversations import chat_tools, chat_turns
from corpusgen.records import Message, Record, canonical_json
from corpusgen.store.shards import write_shard


def shard(folder: Path, *records: Record, name: str = "a.parquet") -> Path:
    write_shard(folder, name, records)
    return folder / name


def answer(number: int, **changes: Any) -> Record:
    """A record of free text."""
    return sample_record(
        **{"record_id": f"r{number}", "kind": "response", "label": None, "response": "A plant.", **changes}
    )


def exported(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_each_row_has_messages_and_prompt_and_completion(tmp_path: Path, name: str) -> None:
    export_chat([shard(tmp_path, answer(1))], tmp_path / name)
    (row,) = exported(tmp_path / name)
    assert list(row) == SCHEMA.names
    assert row["prompt"] == [{"role": "user", "content": "Definition: a small domesticated carnivore\nKind:"}]
    assert row["completion"] == [{"role": "assistant", "content": "A plant."}]
    assert row["messages"] == row["prompt"] + row["completion"]
    assert (row["record_id"], row["teacher"], row["licence"]) == ("r1", "scripted/test", "Apache-2.0")


def test_both_formats_hold_the_same_rows(tmp_path: Path) -> None:
    system = Message(role="system", content="Be brief — 简短。")
    source = shard(tmp_path, *(answer(number, messages=(system,)) for number in range(5)))
    for name in ("out.jsonl", "out.parquet"):
        assert export_chat([source], tmp_path / name, batch_rows=2).rows == 5
    assert exported(tmp_path / "out.jsonl") == exported(tmp_path / "out.parquet")


def conversed(number: int, api: Any, **changes: Any) -> Record:
    """A record of a conversation with tools, which ends in one more call."""
    said = {"api": api, "messages": SAID[api], "tools": TOOLS[api]}
    plain = (Message(role="user", content="words alone"),)
    return answer(
        number,
        messages=plain,
        conversation=canonical_json(said).decode(),
        response="",
        tool_calls=orjson.dumps([{**CHAT_CALL, "index": 0}]).decode(),
        **changes,
    )


SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "How is it in Ulm?"}
TOLD = {"role": "tool", "content": "rain"}
IN_CHAT: dict[str, list[dict[str, Any]]] = {
    "chat": [
        SYSTEM,
        {**ASKED, "name": "ada"},
        {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
        {**TOLD, "tool_call_id": "call_1"},
    ],
    "messages": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "A moment.", "tool_calls": [{**CHAT_CALL, "id": "toolu_1"}]},
        {**TOLD, "tool_call_id": "toolu_1"},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "responses": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
        {**TOLD, "tool_call_id": "call_1"},
    ],
}


@pytest.mark.parametrize("api", sorted(IN_CHAT))
def test_a_conversation_of_any_wire_format_is_written_as_a_chat_with_calls_and_tools(tmp_path: Path, api: str) -> None:
    export_chat([shard(tmp_path, conversed(1, api))], tmp_path / "out.jsonl")
    (row,) = exported(tmp_path / "out.jsonl")
    assert row["prompt"] == IN_CHAT[api]
    assert row["completion"] == [{"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]}]
    assert orjson.loads(row["tools"]) == TOOLS["chat"]


def test_both_formats_hold_the_same_conversations_and_plain_rows_have_no_tools(tmp_path: Path) -> None:
    source = shard(tmp_path, answer(1), *(conversed(at, api) for at, api in enumerate(sorted(SAID), start=2)))
    for name in ("out.jsonl", "out.parquet"):
        assert export_chat([source], tmp_path / name).rows == 4
    assert without_nulls(exported(tmp_path / "out.parquet")) == without_nulls(exported(tmp_path / "out.jsonl"))
    assert pq.read_schema(tmp_path / "out.parquet").names == SCHEMA_WITH_TOOLS.names
    assert [row["tools"] is None for row in exported(tmp_path / "out.jsonl")] == [True, False, False, False]


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return (
        {name: without_nulls(one) for name, one in value.items() if one is not None}
        if isinstance(value, dict)
        else value
    )


def test_a_call_alone_is_an_answer_also_where_the_prompt_was_plain(tmp_path: Path) -> None:
    called = answer(1, response="", tool_calls=orjson.dumps([CHAT_CALL]).decode())
    assert export_chat([shard(tmp_path, called)], tmp_path / "out.jsonl").rows == 1
    assert exported(tmp_path / "out.jsonl")[0]["completion"][0]["tool_calls"] == [CHAT_CALL]


def test_what_an_assistant_says_and_calls_in_one_go_is_one_turn() -> None:
    calls = [{"type": "function_call", "call_id": f"c{at}", "name": "f", "arguments": "{}"} for at in range(2)]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two calls."}]}
    (turn,) = chat_turns({"api": "responses", "messages": [said, *calls]})
    assert (turn["content"], [call["id"] for call in turn["tool_calls"]]) == ("Two calls.", ["c0", "c1"])


def test_tools_that_a_provider_runs_itself_stay_as_they_are() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"type": "custom", "name": "x"}]
    assert chat_tools({"api": "messages", "messages": [], "tools": tools}) == tools


@given(conversations())
def test_any_conversation_that_can_be_sent_can_be_exported(request: Any) -> None:
    turns = [
        orjson.loads(turn.given) if turn.given else {"role": turn.role, "content": turn.content}
        for turn in request.messages
    ]
    told = chat_turns({"api": request.api, "messages": turns})
    schema = pa.schema([SCHEMA_WITH_TOOLS.field("messages")])
    assert pa.Table.from_pylist([{"messages": told}], schema=schema).num_rows == 1


def test_truncated_and_empty_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    source = shard(tmp_path, answer(1, truncated=True), answer(2, response=" \n"), answer(3))
    result = export_chat([source], tmp_path / "out.jsonl")
    assert result.skipped == {"empty answer": 1, "truncated": 1}
    assert [row["record_id"] for row in exported(result.path)] == ["r3"]


def test_gold_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    source = shard(tmp_path, answer(1), answer(2, dataset_split="gold"))
    assert export_chat([source], tmp_path / "out.jsonl").skipped == {"split gold": 1}
    assert export_chat([source], tmp_path / "out.jsonl", splits=("gold",)).rows == 1


def test_a_label_is_the_answer_although_its_request_stopped_after_one_token(tmp_path: Path) -> None:
    labelled = sample_record(response=" plant", label="plant", truncated=True)
    unread = sample_record(record_id="r9", label=None)
    result = export_chat([shard(tmp_path, labelled, unread)], tmp_path / "out.jsonl")
    assert exported(result.path)[0]["completion"][0]["content"] == "plant"
    assert result.skipped == {"empty answer": 1}


def test_a_calibrated_label_goes_before_the_raw_one(tmp_path: Path) -> None:
    source = shard(tmp_path, sample_record(label="plant"))
    table = pq.read_table(source)
    if "calibrated_label" in table.column_names:
        table = table.drop_columns(["calibrated_label"])
    pq.write_table(table.append_column("calibrated_label", [["animal"]]), source)
    export_chat([source], tmp_path / "out.jsonl")
    assert exported(tmp_path / "out.jsonl")[0]["completion"][0]["content"] == "animal"


def test_several_shards_follow_one_another(tmp_path: Path) -> None:
    shards = [shard(tmp_path, answer(number), name=f"{number}.parquet") for number in (2, 1)]
    export_chat(shards, tmp_path / "out.jsonl")
    assert [row["record_id"] for row in exported(tmp_path / "out.jsonl")] == ["r2", "r1"]


def test_no_shards_make_an_empty_file_with_its_columns(tmp_path: Path) -> None:
    assert export_chat([], tmp_path / "out.parquet").rows == 0
    assert pq.read_schema(tmp_path / "out.parquet").names == SCHEMA.names


def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl or \.parquet"):
        export_chat([], tmp_path / "out.csv")


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_damaged_shard_leaves_the_previous_export_and_no_litter(tmp_path: Path, name: str) -> None:
    source = shard(tmp_path / "shards", *sample_records(3))
    export_chat([source], tmp_path / name)
    before = (tmp_path / name).read_bytes()
    source.write_bytes(source.read_bytes()[:-9])
    with pytest.raises(CorpusDamaged, match=r"a\.parquet"):
        export_chat([source], tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"shards", name}


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusDamaged, match="gone"):
        export_chat([tmp_path / "gone.parquet"], tmp_path / "out.jsonl")


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    export_chat([], tmp_path / "chat.parquet")
    with pytest.raises(CorpusDamaged, match="no column kind, response"):
        export_chat([tmp_path / "chat.parquet"], tmp_path / "out.jsonl")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusUnwritable, match=r"out\.jsonl"):
        export_chat([], tmp_path / "file" / "out.jsonl")
