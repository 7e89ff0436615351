from __future__ import annotations

from pathlib import Path

import pytest
from teacher_samples import TickingClock, request, spec

from corpusgen.errors import (
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    SpecError,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UsageError,
)
from corpusgen.records import Completion, Request
from corpusgen.teachers.labels import read_label
from corpusgen.teachers.scripted import Scripted, ScriptedAnswer, ScriptedUsage, connect, scripted

SCRIPT = """
answers:
  - input: whole question
    text: exactly
  - contains: a swan
    label_logprobs: {animal: -0.25, plant: -2.5}
  - contains: an oak
    text: " plant"
    reasoning: oaks are trees
    finish_reason: length
    usage: {input_tokens: 7, output_tokens: 3}
    compute_us: 1500
  - contains: slow down
    error: {kind: rate_limited, retry_after_s: 3}
default:
  labels: [animal, plant]
"""


def from_file(tmp_path: Path, text: str = SCRIPT, name: str = "answers.yaml") -> Scripted:
    (tmp_path / name).write_text(text)
    return connect(spec("scripted/test", script=name), folder=tmp_path, clock=TickingClock())


async def answer(teacher: Scripted, asked: Request) -> Completion:
    return teacher.read(asked, await teacher.ask(asked, timeout_s=1))


async def test_a_whole_question_goes_before_a_part_of_it(tmp_path: Path) -> None:
    teacher = from_file(tmp_path)
    assert (await answer(teacher, request("whole question"))).text == "exactly"
    assert (await answer(teacher, request("Definition: a swan\nKind:"))).text == " animal"


async def test_a_worked_example_before_the_question_does_not_answer_it(tmp_path: Path) -> None:
    asked = request("Definition: a swan\nKind: animal\n\nDefinition: an oak\nKind:", api="chat")
    read = await answer(from_file(tmp_path), asked)
    assert (read.text, read.reasoning, read.trace_kind, read.truncated) == (" plant", "oaks are trees", "raw", True)
    assert (read.usage.input_tokens, read.usage.output_tokens) == (7, 3)


async def test_label_log_probabilities_come_only_if_asked_for(tmp_path: Path) -> None:
    teacher = from_file(tmp_path)
    assert (await answer(teacher, request("a swan"))).logprobs is None
    read = await answer(teacher, request("a swan", top_logprobs=1))
    tokens = await teacher.first_tokens(["animal", "plant"])
    assert read_label(("animal", "plant"), tokens, read).logprobs == (-0.25, None)


async def test_text_has_log_probabilities_too(tmp_path: Path) -> None:
    read = await answer(from_file(tmp_path, 'default: {text: "a big bird"}'), request(top_logprobs=5))
    assert read.logprobs is not None
    assert b"".join(read.logprobs.token_bytes) == b"a big bird"


async def test_the_default_draws_a_label_from_the_question(tmp_path: Path) -> None:
    teacher = from_file(tmp_path)
    asked = [request(f"item {number}", top_logprobs=5) for number in range(20)]
    first = [(await answer(teacher, one)).text for one in asked]
    assert first == [(await answer(teacher, one)).text for one in asked]
    assert set(first) == {" animal", " plant"}


async def test_the_same_request_has_the_same_reply(tmp_path: Path) -> None:
    one, other = from_file(tmp_path), from_file(tmp_path)
    assert (await one.ask(request(), timeout_s=1)) == (await other.ask(request(), timeout_s=1))
    assert one.card.identity == other.card.identity
    assert one.card.identity != from_file(tmp_path, SCRIPT + "\n").card.identity


async def test_what_was_asked_is_listed(tmp_path: Path) -> None:
    teacher = from_file(tmp_path)
    await answer(teacher, request("a swan"))
    with pytest.raises(RateLimited):
        await answer(teacher, request("slow down"))
    assert [one.messages[0].content for one in teacher.asked] == ["a swan", "slow down"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout", TeacherTimeout),
        ("rate_limited", RateLimited),
        ("fault", TeacherFault),
        ("refused", RequestRefused),
        ("not_sent", NotSent),
        ("invalid", InvalidAnswer),
    ],
)
async def test_every_failure_can_be_scripted(tmp_path: Path, kind: str, error: type[TeacherError]) -> None:
    with pytest.raises(TeacherError) as caught:
        await answer(from_file(tmp_path, f"default: {{error: {{kind: {kind}}}}}"), request())
    assert type(caught.value) is error


async def test_latency_is_slept_and_ends_at_the_time_limit() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    teacher = scripted(
        lambda asked: ScriptedAnswer(text="x", latency_s=float(asked.messages[0].content)),
        clock=TickingClock(),
        sleep=sleep,
    )
    await teacher.ask(request("0.5"), timeout_s=1)
    with pytest.raises(TeacherTimeout):
        await teacher.ask(request("5"), timeout_s=1)
    assert slept == [0.5, 1]


async def test_a_function_answers_or_fails() -> None:
    def rule(asked: Request) -> ScriptedAnswer | TeacherError:
        if asked.messages[0].content == "broken":
            return TeacherFault("broken")
        return ScriptedAnswer(text="fine", usage=ScriptedUsage(input_tokens=1, output_tokens=1))

    teacher = scripted(rule, clock=TickingClock())
    assert (await answer(teacher, request())).text == "fine"
    with pytest.raises(TeacherFault, match="broken"):
        await answer(teacher, request("broken"))


async def test_a_question_without_an_answer_is_refused_and_shown(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="'a stone'"):
        await answer(from_file(tmp_path, "answers: []"), request("a stone"))


async def test_a_file_of_lines_works_too(tmp_path: Path) -> None:
    lines = '{"contains": "a swan", "text": "animal"}\n{"text": "other"}\n'
    teacher = from_file(tmp_path, lines, "answers.jsonl")
    assert [(await answer(teacher, request(text))).text for text in ("a swan", "an oak")] == ["animal", "other"]


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.yaml", "answers:\n  - contains: x\n    txt: y\n", r"a.yaml:3: answers.0.txt: Extra inputs"),
        ("a.yaml", "default: {finish_reason: 7}", r"a.yaml:1: default.finish_reason"),
        ("a.yaml", "default: [", r"a.yaml:2: .*not YAML"),
        ("a.jsonl", '{"text": "fine"}\n{"text": 7}\n', r"a.jsonl:2: text"),
        ("a.jsonl", "{", r"a.jsonl:1: Invalid JSON"),
    ],
)
def test_a_mistake_in_the_file_is_shown_with_its_line(tmp_path: Path, name: str, text: str, where: str) -> None:
    with pytest.raises(SpecError, match=where):
        from_file(tmp_path, text, name)


def test_a_missing_file_and_a_missing_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none.yaml: cannot be read: No such file"):
        connect(spec("scripted/test", script="none.yaml"), folder=tmp_path, clock=TickingClock())
    with pytest.raises(UsageError, match="script: teacher 'scripted/test' needs a file"):
        connect(spec("scripted/test"), folder=tmp_path, clock=TickingClock())
