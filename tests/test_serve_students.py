"""Students as models: checked when they are loaded, sure or silent, and counted."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from command import corpusgen
from serve_samples import OPENAI, served, service_yaml
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, CorpusgenError, PolicyRefused, SealRefused, UsageError
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.serve.config import load_config
from corpusgen.serve.meter import Meter
from corpusgen.serve.students import FEWEST, Students, divergence, frame_of
from corpusgen.serve.wires.calls import Call, read_call
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Selector
from corpusgen.store.shards import read_records


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a label task and a corpus that has a student of it."""
    folder = tmp_path_factory.mktemp("distilled")
    spec = write_label_task(folder)
    assert corpusgen("distill", spec, "--corpus", folder / "corpus", "-q").code == 0
    return folder


@pytest.fixture
def folder(distilled: Path, tmp_path: Path) -> Path:
    shutil.copytree(distilled, tmp_path / "copy")
    return tmp_path / "copy"


def the_student(folder: Path) -> Path:
    return next((folder / "corpus" / "students").iterdir())


def open_students(folder: Path, corpus: Corpus, meter: Meter | None = None, **offer: Any) -> Students:
    told = {"name": "kinds", "student": the_student(folder).name, "threshold": 0.0} | offer
    spec = {
        "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
        "teachers": [{"name": "openai/gpt-4.1-mini", "model": "mini", "parameters": {"max_tokens": 5}}],
        "students": [{name: value for name, value in told.items() if value is not None}],
    }
    (folder / "service.yaml").write_text(yaml.safe_dump(spec))
    return asyncio.run(Students.open(corpus, load_config(folder / "service.yaml"), meter=meter))


def call(text: str = "an oak behind the house", **fields: Any) -> Call:
    body = {"model": "student/kinds", "messages": [{"role": "user", "content": text}], **fields}
    return read_call("chat", body)


def test_a_student_answers_as_a_chat_completion(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus, meter := Meter())
        said = asyncio.run(students.answer("kinds", call()))
        assert said is not None
        assert said.label == "plant"
        body = orjson.loads(said.body)
        assert body["choices"][0]["message"]["content"] == "plant"
        assert (body["model"], body["object"]) == ("student/kinds", "chat.completion")
        assert sum(said.probabilities.values()) == pytest.approx(1)
        assert meter.value("corpusgen_student_answers_total", "kinds", "answered") == 1
        assert students.state()[0]["answered"] == 1


def test_it_answers_in_every_wire_format(folder: Path) -> None:
    bodies: dict[Any, dict[str, Any]] = {
        "completion": {"model": "student/kinds", "prompt": "a trout"},
        "responses": {"model": "student/kinds", "input": "a trout"},
        "messages": {"model": "student/kinds", "max_tokens": 5, "messages": [{"role": "user", "content": "a trout"}]},
    }
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus)
        for wire, body in bodies.items():
            said = asyncio.run(students.answer("kinds", read_call(wire, body)))
            assert said is not None
            assert b"animal" in said.body


def test_log_probabilities_of_labels_are_given_where_they_are_asked_for(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        said = asyncio.run(open_students(folder, corpus).answer("kinds", call(logprobs=True, top_logprobs=2)))
        assert said is not None
        (token,) = orjson.loads(said.body)["choices"][0]["logprobs"]["content"]
        assert [one["token"] for one in token["top_logprobs"]] == ["plant", "animal"]
        assert np.exp(token["logprob"]) == pytest.approx(said.probabilities["plant"])


def test_the_input_is_found_in_a_whole_prompt(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        one = open_students(folder, corpus).serving["kinds"]
        assert one.input_of("Text: an oak\nKind:") == "an oak"
        assert one.input_of("Text: an oak\nKind:\n") == "an oak"
        assert one.input_of("an oak") == "an oak"


def test_the_input_is_found_between_the_markers_of_its_row() -> None:
    def asked(text: str, mark: str) -> tuple[str, str]:
        return text, f"Say what it is.\n<data-{mark}>\n{text}\n</data-{mark}>\nKind:"

    frame = frame_of([asked("a cat", "0123456789ab"), asked("an oak", "ba9876543210"), asked("a fern", "0" * 12)])
    assert frame is not None
    found = frame.fullmatch(asked("a daisy", "f" * 12)[1])
    assert found is not None
    assert found[1] == "a daisy"
    assert frame_of([("a cat", "a cat"), ("an oak", "an oak")]) is None


def test_below_its_threshold_it_abstains_and_a_teacher_is_to_be_asked(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus, threshold=1.0, teacher="mini")
        assert asyncio.run(students.answer("kinds", call("something else altogether"))) is None
        state = students.state()[0]
        assert (state["answered"], state["abstained"], state["escalated"]) == (0, 1, 1)
        alone = open_students(folder, corpus, threshold=1.0)
        assert asyncio.run(alone.answer("kinds", call("something else altogether"))) is None
        assert alone.state()[0]["escalated"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_no_label_can_answer_is_left_to_the_teacher(folder: Path, fields: dict[str, Any]) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus, teacher="mini")
        assert asyncio.run(students.answer("kinds", call(**fields))) is None
        assert students.state()[0]["unfit"] == 1


def test_inputs_unlike_those_of_training_are_counted(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus)
        asyncio.run(students.answer("kinds", call("a horse by the river, number 3")))
        assert students.state()[0]["anomalies"] == 0
        asyncio.run(students.answer("kinds", call("Ωραία φώτα πάνω από την πόλη")))
        assert students.state()[0]["anomalies"] == 1


def test_drift_is_told_when_one_label_takes_over(folder: Path) -> None:
    async def asked(students: Students, texts: list[str]) -> Any:
        for text in texts:
            await students.answer("kinds", call(text))
        return students.state()[0]

    both = ["a cat near the old barn, number 8", "an oak near the old barn, number 9"]
    with Corpus.open(folder / "corpus") as corpus:
        before = asyncio.run(asked(open_students(folder, corpus), both * (FEWEST // 2 - 1)))
        even = asyncio.run(asked(open_students(folder, corpus), both * (FEWEST // 2)))
        odd = asyncio.run(asked(open_students(folder, corpus), both[:1] * FEWEST))
    assert before["drift"] is None
    assert (even["drifted"], odd["drifted"]) == (False, True)
    assert 0 <= even["drift"] < odd["drift"] <= 1


def test_divergence_is_nought_for_equals_and_one_for_strangers() -> None:
    even, left, right = np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert divergence(even, even) == 0
    assert divergence(left, right) == 1


@pytest.mark.parametrize("name", ["student.safetensors", "student.json", "facts.json"])
def test_an_altered_file_is_refused_at_the_start(folder: Path, name: str) -> None:
    path = the_student(folder) / name
    path.write_bytes(path.read_bytes().replace(b"animal", b"cereal") + b" ")
    with Corpus.open(folder / "corpus") as corpus, pytest.raises(CorpusDamaged, match="was altered") as error:
        open_students(folder, corpus)
    assert f"{folder / 'service.yaml'}:" in str(error.value)
    assert name in str(error.value)


def test_a_file_that_is_gone_is_refused_too(folder: Path) -> None:
    student = the_student(folder)
    (student / "student.safetensors").unlink()
    with Corpus.open(folder / "corpus") as corpus, pytest.raises(CorpusDamaged, match="is gone"):
        open_students(folder, corpus, student=student.name)


def test_a_student_may_be_named_by_its_folder(folder: Path) -> None:
    shutil.copytree(the_student(folder), folder / "kept")
    with Corpus.open(folder / "corpus") as corpus:
        said = asyncio.run(open_students(folder, corpus, student="./kept").answer("kinds", call()))
        assert said is not None
        assert said.label == "plant"


def test_a_student_of_another_corpus_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(the_student(folder), folder / "kept")
    with Corpus.open(tmp_path / "other") as corpus, pytest.raises(CorpusDamaged, match="does not tell of"):
        open_students(folder, corpus, student="./kept")


@pytest.mark.parametrize("named", ["zzz", "./nowhere"])
def test_a_student_that_is_not_there_is_told_with_its_line(folder: Path, named: str) -> None:
    with Corpus.open(folder / "corpus") as corpus, pytest.raises(UsageError, match=r"service\.yaml:\d+: student/kinds"):
        open_students(folder, corpus, student=named)


def test_a_student_that_learned_from_what_was_erased_is_refused(folder: Path) -> None:
    record = next(iter(read_records([next((folder / "corpus").glob("datasets/kinds-1/*.parquet"))])))
    with Corpus.open(folder / "corpus") as corpus:
        erase(corpus, Selector(kind="record", values=(record.record_id,)), by="me")
        with pytest.raises(SealRefused, match="weights forget nothing"):
            open_students(folder, corpus)


def test_a_student_is_refused_once_something_it_learned_from_is_erased(folder: Path) -> None:
    record = next(iter(read_records([next((folder / "corpus").glob("datasets/kinds-1/*.parquet"))])))
    with Corpus.open(folder / "corpus") as corpus:
        students = open_students(folder, corpus)
        assert asyncio.run(students.answer("kinds", call())) is not None
        erase(corpus, Selector(kind="record", values=(record.record_id,)), by="me")
        students._looked = 0  # a second later
        with pytest.raises(PolicyRefused, match="weights forget nothing"):
            asyncio.run(students.answer("kinds", call()))
        assert "weights forget nothing" in students.state()[0]["refused"]


def test_a_student_whose_release_was_withdrawn_is_refused(folder: Path) -> None:
    student, corpus_folder = the_student(folder).name, folder / "corpus"
    named = ("--name", "kinds", "--approver", "me", "--spec", folder / "task.yaml")
    made = corpusgen("release", student, *named, "--corpus", corpus_folder, "--json")
    assert made.code == 0, made.stderr
    with Corpus.open(corpus_folder) as corpus:
        assert open_students(folder, corpus).names() == ("kinds",)
    withdrawn = ("--withdraw", made.object["release_id"], "--by", "me", "--reason", "wrong")
    gone = corpusgen("release", *withdrawn, "--corpus", corpus_folder)
    assert gone.code == 0, gone.stderr
    with Corpus.open(corpus_folder) as corpus, pytest.raises(SealRefused, match="was withdrawn"):
        open_students(folder, corpus)


def test_another_name_is_told_with_those_there_are(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus, pytest.raises(CorpusgenError, match="there are: kinds"):
        asyncio.run(open_students(folder, corpus).answer("moods", call()))


def test_a_service_answers_with_its_student_and_asks_a_teacher_where_it_is_not_sure(folder: Path) -> None:
    def offer(threshold: float, teacher: str) -> str:
        return f"students:\n  - {{name: kinds, student: {the_student(folder).name}, threshold: {threshold}{teacher}}}\n"

    async def asked(more: str, *, left: str | None = None) -> tuple[int, str | None, int]:
        turns = [{"role": "user", "content": "an oak behind the house"}]
        body = {"model": "student/kinds", "messages": turns, "max_tokens": 8}
        async with (
            mock_teacher(Options()) as mock,
            served(folder, mock=mock, config=service_yaml(mock, more=more)) as one,
        ):
            got = await one.post("/v1/chat/completions", body)
            models = (await one.get("/v1/models")).json["data"]
            assert "student/kinds" in [model["id"] for model in models]
            assert got.header("x-corpusgen-student") == left
            return got.status, got.header("x-corpusgen-cache"), mock.bill.to_json()["requests"]

    assert asyncio.run(asked(offer(0.0, ""))) == (200, "student", 0)
    passed_on = asked(offer(1.0, f", teacher: {OPENAI}"), left="abstained")
    assert asyncio.run(passed_on) == (200, "miss", 1)
    status, _, requests = asyncio.run(asked(offer(1.0, "")))
    assert (status, requests) == (400, 0)


async def test_a_service_tells_what_its_students_have_done_and_why_one_answers_no_more(folder: Path) -> None:
    student = the_student(folder).name
    offer = f"students:\n  - {{name: kinds, student: {student}, threshold: 0.0}}\n"
    async with mock_teacher(Options()) as mock, served(folder, mock=mock, config=service_yaml(mock, more=offer)) as one:
        asked = {"model": "student/kinds", "messages": [{"role": "user", "content": "an oak behind the house"}]}
        assert (await one.post("/v1/chat/completions", asked)).status == 200
        (told,) = (await one.get("/api/v1/serving")).json["serving"]
        assert (told["name"], told["student_id"], told["answered"], told["refused"]) == ("kinds", student, 1, None)
        assert "1 call answered" in (await one.get(f"/console/students/{student}")).text
        record = next(iter(read_records([next((folder / "corpus").glob("datasets/kinds-1/*.parquet"))])))
        await asyncio.to_thread(erase, one.corpus, Selector(kind="record", values=(record.record_id,)), by="me")
        one.service.desk.students._looked = 0  # type: ignore[union-attr] # a second later
        (told,) = (await one.get("/api/v1/serving")).json["serving"]
        assert "weights forget nothing" in told["refused"]
        assert "weights forget nothing" in (await one.get(f"/console/students/{student}")).text
