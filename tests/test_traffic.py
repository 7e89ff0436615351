"""Traffic: planted clusters are found, ranked by what they are worth, and written as tasks that can be planned."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from command import Ran, corpusgen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_samples import MESSAGES, OPENAI, served
from task_samples import write_label_task
from traffic_samples import BEGIN, PLANTED, Planted, log_line, planted, record, write_log

from corpusgen.corpus import Corpus
from corpusgen.journal import Transaction
from corpusgen.stages.loading import load_task
from corpusgen.stages.traffic.clusters import COUNTED, Repeats, learn_clusters
from corpusgen.stages.traffic.finding import Traffic, of_logs, teacher_of
from corpusgen.stages.traffic.ranking import WEIGHTS, WHY, Ranked, keys_of, normal
from corpusgen.stages.traffic.reading import Heard, Log, Window
from corpusgen.stages.traffic.templates import common_heads, common_tail, cut, words_of

TODAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def calls() -> list[Planted]:
    return list(planted(3_000))


@pytest.fixture(scope="module")
def log(calls: list[Planted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("logs") / "calls.jsonl", calls)


@pytest.fixture(scope="module")
def found(log: Path) -> Traffic:
    return of_logs(Log(files=(log,)), Window(), on=TODAY, use=None, corpus=None)


@pytest.fixture(scope="module")
def recorded(calls: list[Planted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded") / "corpus", calls[:1_000])


def line_of(heard: Heard) -> int:
    return int(heard.place.rpartition(":")[2])


def clusters_of(found: Traffic, calls: list[Planted]) -> dict[str, Counter[int]]:
    """How many calls of each planted cluster are in which of those that were found."""
    told: dict[str, Counter[int]] = defaultdict(Counter)
    for number, heard in found.sorter.sorted(found.read()):
        told[calls[line_of(heard) - 1].cluster][number] += 1
    return told


def the(found: Traffic, told: dict[str, Counter[int]], name: str) -> Ranked:
    number = told[name].most_common(1)[0][0]
    return next(one for one in found.clusters if one.number == number)


# --- Clusters --------------------------------------------------------------------------------------------------------


def test_planted_clusters_are_found_whole_and_apart(found: Traffic, calls: list[Planted]) -> None:
    told = clusters_of(found, calls)
    mixed: dict[int, Counter[str]] = defaultdict(Counter)
    for name, numbers in told.items():
        for number, count in numbers.items():
            mixed[number][name] += count
    pure = sum(names.most_common(1)[0][1] for names in mixed.values()) / len(calls)
    whole = {name: max(numbers.values()) / sum(numbers.values()) for name, numbers in told.items() if name != "talk"}
    assert pure >= 0.99
    assert min(whole.values()) >= 0.97


def test_every_call_is_in_one_cluster(found: Traffic, calls: list[Planted]) -> None:
    lines = [line_of(heard) for _, heard in found.sorter.sorted(found.read())]
    assert sorted(lines) == list(range(1, len(calls) + 1))
    assert sum(one.tally.all_calls for one in found.clusters) == len(calls)


def test_the_order_of_the_calls_changes_no_cluster(calls: list[Planted], tmp_path: Path) -> None:
    def sizes(ones: list[Planted], name: str) -> list[int]:
        sorter = learn_clusters(reader := Log(files=(write_log(tmp_path / name, ones),)).reader(Window()))
        return sorted(Counter(number for number, _ in sorter.sorted(reader())).values())

    assert sizes(calls, "one.jsonl") == sizes(calls[::-1], "two.jsonl")


def test_the_same_beginning_with_two_ways_to_go_on_is_two_templates() -> None:
    rows = [words_of(f"Translate into {language}: text {word} here") for language in ("German", "French")
            for word in ("one", "two", "three", "four", "five", "six", "seven")]  # fmt: skip
    heads = [head for head, _ in common_heads(rows)]
    assert ("Translate", "into", "German", ":", "text") in heads
    assert ("Translate", "into", "French", ":", "text") in heads


def test_where_each_goes_on_in_its_own_way_a_slot_begins() -> None:
    rows = [words_of(f"What is the mood of this: {word} {word} end? Answer with one word.") for word in "abcdefghij"]
    ((head, members),) = common_heads(rows)
    assert (head, len(members)) == (words_of("What is the mood of this:"), 10)
    assert common_tail(rows, len(head)) == words_of("end? Answer with one word.")


def test_numbers_quotes_and_addresses_are_slots() -> None:
    one, two = (words_of(f'Order {n} of "{n} lamps" at https://x.test/{n}') for n in (7, 12_345))
    assert one == two
    text = 'Say "yes" 3 times'
    assert [text[begin:end] for begin, end in cut(text).spans] == ["Say", '"yes"', "3", "times"]


def test_what_is_remembered_of_prompts_is_bounded() -> None:
    repeats = Repeats()
    for mark in range(0, 2**64, 2**64 // (3 * COUNTED)):
        repeats.add(mark)
    assert len(repeats.counts) <= COUNTED


# --- Ranking ---------------------------------------------------------------------------------------------------------


def test_forms_of_answers_are_told(found: Traffic, calls: list[Planted]) -> None:
    told = clusters_of(found, calls)
    forms = {name: the(found, told, name).form for name in PLANTED}
    assert forms | {"talk": "text", "ping": "text"} == {
        "mood": "label",
        "triage": "label",
        "extract": "fields",
        "german": "text",
        "french": "text",
        "summary": "text",
        "rag": "text",
        "agent": "tools",
        "talk": "text",
        "ping": "text",
    }
    assert set(the(found, told, "mood").labels) == {"positive", "negative", "neutral"}
    assert the(found, told, "extract").keys == ("place", "product", "urgency")


def test_labels_are_easier_to_learn_than_fields_and_fields_than_text(found: Traffic, calls: list[Planted]) -> None:
    told = clusters_of(found, calls)
    score = {name: the(found, told, name).score for name in PLANTED}
    assert score["mood"] > 0.9
    assert score["triage"] > 0.9
    assert score["triage"] > score["extract"] > score["summary"]
    assert the(found, told, "agent").monthly.saved_microusd == 0


def test_the_score_is_the_weighted_sum_of_parts_that_are_explained(found: Traffic) -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert WEIGHTS.keys() == WHY.keys()
    for one in found.clusters:
        assert one.score == pytest.approx(sum(WEIGHTS[name] * part for name, part in one.parts.items()), abs=0.001)
        assert all(0 <= part <= 1 for part in one.parts.values())


def test_clusters_come_by_what_could_be_saved(found: Traffic, calls: list[Planted]) -> None:
    told = clusters_of(found, calls)
    worth = [one.monthly.saved_microusd + one.monthly.repeats_microusd for one in found.clusters]
    assert worth == sorted(worth, reverse=True)
    assert found.clusters[0].number == the(found, told, "triage").number


def test_spend_and_exact_repeats_are_those_of_the_calls(found: Traffic, calls: list[Planted]) -> None:
    told = clusters_of(found, calls)
    mood = [one for one in calls if one.cluster == "mood"]
    ranked = the(found, told, "mood")
    assert ranked.tally.microusd == round(sum(one.cost_usd for one in mood) * 1e6)
    assert ranked.exact_repeats == len(mood) - len({orjson.dumps(one.request) for one in mood})
    ping = the(found, told, "ping")
    assert (ping.tally.cluster.kind, ping.exact_repeats) == ("same call", ping.tally.calls - 1)


def test_answers_that_change_under_repeats_are_less_stable(tmp_path: Path) -> None:
    def stable(answers: list[str]) -> float:
        request = {"model": "m", "messages": [{"role": "user", "content": "Is it raining now?"}]}
        lines = [{"request": request, "response": answer} for answer in answers]
        (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
        told = of_logs(Log(files=(tmp_path / "log.jsonl",)), Window(), on=TODAY, use=None, corpus=None)
        return told.clusters[0].parts["stable"]

    assert stable(["yes"] * 30) == 1
    assert stable(["yes", "no"] * 15) == 0


def test_near_repeats_are_seen(tmp_path: Path) -> None:
    words = "the parcel that you sent me on the first of the month came with a broken corner and a wet label".split()  # noqa: SIM905 - a sentence
    near = [" ".join([*words[:at], "really", *words[at:]]) for at in range(1, 19)]
    asked = [f"Sort this for us now: {text}" for text in (*near, *(f"{n} {'x' * n}" for n in range(9)))]
    lines = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in asked]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    told = of_logs(Log(files=(tmp_path / "log.jsonl",)), Window(), on=TODAY, use=None, corpus=None)
    near_repeats = told.clusters[0].near_repeats
    assert near_repeats is not None
    assert 0.5 <= near_repeats <= 17 / 27


def test_answers_are_compared_without_what_says_nothing() -> None:
    assert normal("  Positive.\n") == normal("positive") == "positive"
    assert keys_of('```json\n{"b": 1, "a": 2}\n```') == ("a", "b")
    assert keys_of("{not json") is None


# --- Logs of other services ------------------------------------------------------------------------------------------


def heard_in(tmp_path: Path, *lines: Any, log: Log | None = None) -> list[Heard]:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines))
    return list((log or Log(files=(path,))).reader(Window())())


CHAT = {
    "model": "gpt-4.1-mini",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
}
REPLY = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}], "usage": {"prompt_tokens": 9}}


@pytest.mark.parametrize(
    "line",
    [
        {"request": CHAT, "response": REPLY, "timestamp": "2026-11-16T10:00:00Z"},
        {"request": {"body": CHAT}, "response": {"status_code": 200, "body": REPLY}, "timestamp": 1_794_909_600},
        CHAT | {"response": REPLY, "startTime": 1_794_909_600.0, "response_cost": 0.0, "custom_llm_provider": "openai"},
        CHAT | {"response": "Hello", "prompt_tokens": 9, "time": "2026-11-17T10:00:00"},
        {"request": {"model": "m", "instructions": "Be brief.", "input": "Hi"},
         "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]},
         "timestamp": 1_794_909_600_000},
        {"request": {"model": "claude-x", "system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]},
         "response": {"content": [{"type": "text", "text": "Hello"}], "usage": {"input_tokens": 9}},
         "created": 1_794_909_600},
    ],
)  # fmt: skip
def test_common_shapes_of_logs_are_read(tmp_path: Path, line: dict[str, Any]) -> None:
    (heard,) = heard_in(tmp_path, line)
    assert (heard.text, heard.answer, heard.turns) == ("Hi", "Hello", 1)
    assert "Be brief." in heard.before
    assert heard.at_us is not None
    assert datetime.fromtimestamp(heard.at_us / 1e6, UTC).strftime("%Y-%m") == "2026-11"


def test_a_plain_request_counts_without_an_answer(tmp_path: Path) -> None:
    (heard,) = heard_in(tmp_path, CHAT)
    assert (heard.answer, heard.at_us, heard.cost_microusd) == (None, None, None)


def test_questions_and_answers_of_a_batch_belong_together(tmp_path: Path) -> None:
    asked = [{"custom_id": f"q{n}", "method": "POST", "url": "/v1/chat/completions", "body": CHAT} for n in range(3)]
    told = [{"custom_id": f"q{n}", "response": {"status_code": 200, "body": REPLY}, "error": None} for n in range(2)]
    heard = heard_in(tmp_path, *told, *asked)
    assert [one.answer for one in heard] == ["Hello", "Hello", None]
    assert all(one.text == "Hi" for one in heard)


def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    log = Log(files=(tmp_path / "log.jsonl",))
    output = {"custom_id": "lost", "response": {"body": REPLY}}
    heard = heard_in(tmp_path, CHAT, b"{broken", b"[1]", {"a": 1}, {"request": {"model": "m"}}, output, CHAT, log=log)
    assert (len(heard), log.bad_lines) == (2, 5)
    assert {place.rpartition(":")[2] for place in log.bad} == {"2", "3", "4", "5", "6"}
    assert "give the batch's input file" in log.bad[f"{tmp_path / 'log.jsonl'}:6"]


def test_bad_lines_are_told_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(orjson.dumps(CHAT) + b"\n{broken\n")
    ran = corpusgen("traffic", "--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none")
    assert ran.code == 0, ran.stderr
    assert f"left out {tmp_path / 'log.jsonl'}:2: is not a JSON object" in ran.stdout
    assert not (tmp_path / "none").exists()


def test_a_log_of_bad_lines_only_is_refused_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"nothing\n")
    ran = corpusgen("traffic", "--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none")
    assert ran.code == 2
    assert f"{tmp_path / 'log.jsonl'}:1" in ran.stderr


def test_reading_a_log_writes_nothing_to_a_corpus(recorded: Path, log: Path) -> None:
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file() and "-shm" not in path.name}
    assert corpusgen("traffic", "--log", log, "--corpus", recorded, "--json").code == 0
    with Corpus.open(recorded, reading=True) as corpus:
        assert corpus.journal.query("select count(*) from events")[0][0] == 0
    after = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file() and "-shm" not in path.name}
    assert before.keys() == after.keys()


def test_models_of_logs_are_teachers_only_where_the_address_says_nothing_else() -> None:
    names = {name: teacher_of(name) for name in ("gpt-4.1-mini", "openai/gpt-4.1-mini https://api.openai.com/v1",
                                                  "gpt-4.1-mini https://proxy.test/v1", "somebody-13b")}  # fmt: skip
    assert [spec and spec.name for spec in names.values()] == ["openai/gpt-4.1-mini"] * 2 + [None, None]


def test_prices_are_looked_up_where_a_log_tells_none(tmp_path: Path) -> None:
    line = CHAT | {"response": REPLY | {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}}
    (tmp_path / "log.jsonl").write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps({**line, "model": "somebody-13b"}))
    told = of_logs(Log(files=(tmp_path / "log.jsonl",)), Window(), on=TODAY, use=None, corpus=None)
    assert told.microusd > 100_000
    assert (told.calls, told.unpriced) == (2, 1)


# --- A corpus --------------------------------------------------------------------------------------------------------


def traffic_of(corpus: Path, *options: str | Path) -> dict[str, Any]:
    ran = corpusgen("traffic", "--corpus", corpus, *options, "--json")
    assert ran.code == 0, ran.stderr
    return ran.object


def test_recorded_calls_are_told_with_spend_and_rights(recorded: Path, calls: list[Planted]) -> None:
    told = traffic_of(recorded)
    assert told["calls"] == len({orjson.dumps(one.request["messages"]) for one in calls[:1_000]})
    with Corpus.open(recorded, reading=True) as corpus:
        assert told["microusd"] == corpus.journal.query("select sum(cost_microusd) from answers")[0][0]
    (right,) = told["clusters"][0]["rights"]
    assert (right["teacher"], right["outcome"], right["use"]) == ("endpoint/m", "allow", "internal")
    assert right["calls"] == told["clusters"][0]["calls"]


def test_answers_from_the_cache_count_as_repeats(recorded: Path, tmp_path: Path) -> None:
    before = {one["prompt"]: one for one in traffic_of(recorded)["clusters"]}
    day = int(BEGIN.timestamp()) // 86_400

    def hit(transaction: Transaction) -> None:
        transaction.execute("insert into hits select record_id, 'ann', ?, 3, 60 from records", (day,))

    shutil.copytree(recorded, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as corpus:
        corpus.journal.run_now(hit)
    told = traffic_of(tmp_path / "corpus")
    assert told["cache_hits"] == 3 * told["calls"]
    for one in told["clusters"]:
        assert one["exact_repeats"] == before[one["prompt"]]["exact_repeats"] + one["cache_hits"]
        assert one["microusd"] == before[one["prompt"]]["microusd"]
    later = traffic_of(tmp_path / "corpus", "--since", "2026-11-11")
    assert (later["cache_hits"], later["calls"] < told["calls"]) == (0, True)


def test_a_period_a_task_and_a_user_can_be_asked_about(recorded: Path) -> None:
    whole = traffic_of(recorded)["calls"]
    first = traffic_of(recorded, "--until", "2026-11-12")["calls"]
    rest = traffic_of(recorded, "--since", "2026-11-12")["calls"]
    assert (first + rest, 0 < first < whole) == (whole, True)
    assert traffic_of(recorded, "--task", "traffic")["calls"] == whole
    for asked in (("--task", "other"), ("--user", "bob"), ("--until", "2026-11-01")):
        ran = corpusgen("traffic", "--corpus", recorded, *asked)
        assert (ran.code, "no call in this period" in ran.stderr) == (2, True)


def test_callers_of_a_service_are_told_apart(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "corpus")
    told = '{"user": "bob", "token": "t1", "wire": "chat"}'
    with Corpus.open(tmp_path / "corpus") as corpus:
        sql = "update records set item = json_set(item, '$.caller', json(?)) where ordinal % 4 = 0"
        corpus.journal.run_now(lambda transaction: transaction.execute(sql, (told,)))
    whole, of_bob = traffic_of(tmp_path / "corpus")["calls"], traffic_of(tmp_path / "corpus", "--user", "bob")
    assert of_bob["calls"] == -(-whole // 4)
    assert set(of_bob["clusters"][0]["users"]) == {"bob"}


def test_what_a_service_recorded_is_told_and_written(tmp_path: Path) -> None:
    words = ("lamp", "kettle", "road", "cloud", "piano", "ferry", "glove") * 3
    texts = [f"{word} {at} {word[::-1]}" for at, word in enumerate(words)]

    async def asked() -> None:
        async with served(tmp_path) as service:
            for text in [*texts, *texts[:7]]:
                turn = {"role": "user", "content": f"Say in one word what kind of thing this is.\nThing: {text}"}
                got = await service.post("/v1/chat/completions", {"model": OPENAI, "messages": [turn], "max_tokens": 8})
                assert got.status == 200, got.text
            assert (await service.post("/v1/messages", MESSAGES)).status == 200

    asyncio.run(asked())
    told = traffic_of(tmp_path / "corpus", "--write", tmp_path / "tasks", "--cluster", "0")
    first = next(one for one in told["clusters"] if one["cluster"] == 0)
    assert (told["calls"], told["cache_hits"]) == (22, 7)
    assert (first["calls"], first["cache_hits"], first["exact_repeats"]) == (21, 7, 7)
    assert first["users"] == {"local": 28}
    assert first["rights"][0]["outcome"] == "allow"
    (made,) = told["written"]
    assert made["seeds"] == 21
    assert planned(made["folder"], tmp_path).code == 0
    spec = load_task(Path(made["folder"]) / "task.yaml").spec
    assert (spec.teachers[0].price is not None, spec.sources[0].id) == (True, "calls")


@pytest.mark.parametrize("options", [("--since", "soon"), ("--since", "1d", "--until", "2d"), ("--cluster", "1")])
def test_what_makes_no_sense_is_refused(recorded: Path, options: tuple[str, ...]) -> None:
    assert corpusgen("traffic", "--corpus", recorded, *options).code == 2


def test_the_table_says_the_same_as_the_object(recorded: Path) -> None:
    told, table = traffic_of(recorded), corpusgen("traffic", "--corpus", recorded, "--all").stdout
    assert f"{told['calls']:,} calls" in table
    assert table.count("CLUSTER ") == len(told["clusters"])
    assert all(f"  {line}" in table for line in told["assumptions"])
    assert table.rstrip().endswith("Not legal advice.")


# --- Tasks to start from ---------------------------------------------------------------------------------------------


def written(corpus: Path, folder: Path, *options: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = traffic_of(corpus, "--write", folder, *options)["written"]
    return found


def planned(folder: str | Path, tmp_path: Path) -> Ran:
    return corpusgen("plan", Path(folder) / "task.yaml", "--corpus", tmp_path / "unmade", "--json")


def test_written_tasks_can_be_planned_without_an_edit(recorded: Path, tmp_path: Path) -> None:
    numbers = [one["cluster"] for one in traffic_of(recorded)["clusters"] if one["kind"] == "template"]
    chosen = [option for number in numbers for option in ("--cluster", str(number))]
    made = written(recorded, tmp_path / "tasks", *chosen)
    assert len(made) == len(numbers) >= 8
    for one in made:
        ran = planned(one["folder"], tmp_path)
        assert ran.code == 0, (one, ran.stderr)
    assert Counter(one["kind"] for one in made)["label"] == 2


def test_a_written_task_asks_what_was_recorded(recorded: Path, calls: list[Planted], tmp_path: Path) -> None:
    numbers = [one["cluster"] for one in traffic_of(recorded)["clusters"] if one["kind"] == "template"]
    asked = {orjson.dumps([turn["content"] for turn in one.request["messages"]]) for one in calls[:1_000]}
    chosen = [option for number in numbers for option in ("--cluster", str(number))]
    again = 0
    for one in written(recorded, tmp_path / "tasks", *chosen):
        items = list(load_task(Path(one["folder"]) / "task.yaml").prompter.items("train"))
        assert len(items) == one["seeds"]
        for item in items:
            assert orjson.dumps([turn.content for turn in item.messages]) in asked
        again += len(items)
    in_templates = [one for one in calls[:1_000] if one.cluster not in ("talk", "ping")]
    assert again >= 0.97 * len({orjson.dumps(one.request["messages"]) for one in in_templates})


def test_a_label_task_has_the_recorded_names_teacher_and_use(recorded: Path, tmp_path: Path) -> None:
    made = written(recorded, tmp_path / "tasks")
    specs = [load_task(Path(one["folder"]) / "task.yaml").spec for one in made if one["kind"] == "label"]
    assert {"Positive", "Negative", "Neutral"} in [set(spec.labels.names) for spec in specs if spec.labels]
    for spec in specs:
        assert (spec.teachers[0].name, spec.teachers[0].base_url) == ("endpoint/m", "http://127.0.0.1:9/v1")
        assert spec.intended_use.student_competes == "no"
        assert spec.sources[0].licence == "CC0-1.0"


def test_nothing_that_is_there_is_written_over(recorded: Path, tmp_path: Path) -> None:
    (one, *_) = written(recorded, tmp_path / "tasks")
    spec = Path(one["folder"]) / "task.yaml"
    spec.write_text("mine", "utf-8")
    ran = corpusgen("traffic", "--corpus", recorded, "--write", tmp_path / "tasks", "--cluster", str(one["cluster"]))
    assert (ran.code, "nothing is written over" in ran.stderr) == (2, True)
    assert spec.read_text("utf-8") == "mine"
    assert not list((tmp_path / "tasks").glob(".*"))


def test_a_log_leaves_one_question_unless_it_is_answered(calls: list[Planted], tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", calls[:400])
    options = ("--log", log, "--corpus", tmp_path / "none", "--json")
    asked = corpusgen("traffic", *options, "--write", tmp_path / "asked").object["written"]
    ran = planned(asked[0]["folder"], tmp_path)
    assert (ran.code, "intended_use" in ran.stderr) == (2, True)
    spec = Path(asked[0]["folder"]) / "task.yaml"
    said = '{student_distribution: internal, student_competes: "no", commercial: false}'
    spec.write_text(spec.read_text("utf-8").replace("intended_use:", f"intended_use: {said}", 1), "utf-8")
    loaded = planned(spec.parent, tmp_path)  # and refused by today's terms, as far as these go
    assert (loaded.code, loaded.object["policy"]) == (4, "needs_waiver")
    told = corpusgen("traffic", *options, "--write", tmp_path / "told", "--use", "internal").object["written"]
    assert planned(told[0]["folder"], tmp_path).object["policy"] == "deny"


def test_conversations_become_seeds_with_turns(calls: list[Planted], recorded: Path, tmp_path: Path) -> None:
    (agent,) = [one for one in traffic_of(recorded)["clusters"] if one["form"] == "tools"]
    (made,) = written(recorded, tmp_path / "tasks", "--cluster", str(agent["cluster"]))
    task = load_task(Path(made["folder"]) / "task.yaml")
    assert task.prompter.file.inputs == ("messages",)
    assert {len(item.messages) for item in task.prompter.items("train")} == {2, 4, 6}
    assert task.spec.tools[0]["function"]["name"] == "book"


def test_secrets_in_a_log_do_not_become_seeds(tmp_path: Path, calls: list[Planted]) -> None:
    key = "sk-proj-" + "aB3dE6gH9j" * 5
    ones = [log_line(one) for one in calls if one.cluster == "mood"][:60]
    ones[0]["request"]["messages"][0]["content"] = (
        f"What is the mood of this review? Answer with one word.\n\nReview: {key}\n\nMood:"
    )
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, ones)))
    options = ("--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none", "--use", "internal", "--json")
    ran = corpusgen("traffic", *options, "--write", tmp_path / "out")
    (made,) = ran.object["written"]
    assert key not in (Path(made["folder"]) / "seeds.jsonl").read_text("utf-8")
    assert made["left_out"] >= 1


def test_names_and_braces_of_prompts_do_not_break_a_written_prompt(tmp_path: Path) -> None:
    start = "Fill in {name} and {{x}} for this customer, and answer in one short line:\nuser:\n"
    lines = [{"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": f"{start}{n} {'ab' * n} words"}],
              "response": "ok then"} for n in range(1, 40)]  # fmt: skip
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    options = ("--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none", "--use", "internal", "--json")
    ran = corpusgen("traffic", *options, "--write", tmp_path / "out", "--cluster", "0")
    assert ran.code == 0, ran.stderr
    task = load_task(Path(ran.object["written"][0]["folder"]) / "task.yaml")
    assert next(task.prompter.items("train")).messages[-1].content.startswith(start.strip())


# --- Whatever stands in a log ----------------------------------------------------------------------------------------

FIELDS = ("request", "response", "messages", "role", "content", "model", "body", "custom_id", "timestamp", "usage",
          "choices", "message", "output", "text", "input", "prompt", "metadata", "created", "response_cost", "user",
          "tools", "max_tokens", "model_parameters", "temperature")  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    LEAVES | st.text(max_size=12) | st.sampled_from(["user", "system", "2026-11-16", "0001-01-01T00:00+14:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), min_size=1, max_size=4))
def test_no_line_of_a_log_breaks_the_others(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    log = Log(files=(tmp_path / "log.jsonl",))
    heard = heard_in(tmp_path, CHAT, *lines, CHAT, log=log)
    asking = sum(isinstance(one.get("custom_id"), str) and "body" in one for one in lines)
    assert len(lines) + 2 - asking <= len(heard) + log.bad_lines <= len(lines) + 2
    assert len(heard) >= 2


def test_a_task_of_every_kind_of_cluster_can_be_planned(recorded: Path, tmp_path: Path) -> None:
    others = [one for one in traffic_of(recorded)["clusters"] if one["kind"] != "template"]
    assert {one["kind"] for one in others} >= {"meaning"}
    for one in others:
        (made,) = written(recorded, tmp_path / "tasks", "--cluster", str(one["cluster"]))
        assert planned(made["folder"], tmp_path).code == 0


def test_tasks_go_where_one_may_write(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ran = corpusgen("traffic", "--corpus", recorded, "--write", tmp_path / "file" / "tasks", "--cluster", "0")
    assert (ran.code, "cannot be written" in ran.stderr) == (2, True)


def test_runs_of_labels_are_told_by_their_labels(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    assert corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q").code == 0
    (one, *_) = traffic_of(tmp_path / "corpus")["clusters"]
    assert (one["form"], set(one["labels"])) == ("label", {"animal", "plant"})


def test_slots_in_the_middle_of_a_system_prompt_become_variables(tmp_path: Path) -> None:
    def call(at: int) -> dict[str, Any]:
        system = (
            f"You are the bot of Acme. The customer is {'abcdefghij'[at % 10] * 3} of plan {at}. Never promise refunds."
        )
        turns = [{"role": "system", "content": system}, {"role": "user", "content": f"{'xyz'[at % 3] * at} please"}]
        return {"model": "gpt-4.1-mini", "messages": turns}

    (tmp_path / "log.jsonl").write_bytes(b"\n".join(orjson.dumps(call(at)) for at in range(1, 60)))
    options = ("--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none", "--use", "internal", "--json")
    (made,) = corpusgen("traffic", *options, "--write", tmp_path / "out", "--cluster", "0").object["written"]
    prompt = (Path(made["folder"]) / "prompt.md").read_text("utf-8")
    assert "You are the bot of Acme. The customer is {context}. Never promise refunds." in prompt
    assert made["seeds"] == 59


def test_a_teacher_that_is_not_known_is_told(tmp_path: Path) -> None:
    lines = [{"model": "somebody-13b", "prompt": f"Sum this up: {'ab' * at} now"} for at in range(1, 30)]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    options = ("--log", tmp_path / "log.jsonl", "--corpus", tmp_path / "none", "--use", "internal")
    ran = corpusgen("traffic", *options, "--write", tmp_path / "out", "--cluster", "0")
    assert "who answered as 'somebody-13b' is not known here: name the teacher" in ran.stdout
    (spec,) = (tmp_path / "out").glob("*/task.yaml")
    spec.write_text(spec.read_text("utf-8").replace("openai/somebody-13b", "openai/gpt-4.1-mini"), "utf-8")
    assert planned(spec.parent, tmp_path).object["policy"] == "deny"
