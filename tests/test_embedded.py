from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversation_samples import CHAT, asked, given_turn
from teacher_samples import TickingClock, request, spec

from corpusgen.errors import NotSent, RequestRefused, TeacherFault, UnknownTeacher, UnsupportedParameter
from corpusgen.records import Completion
from corpusgen.teachers.embedded import MODELS, Embedded, connect, find_weights, runtime_installed
from corpusgen.teachers.labels import LabelReading, check_first_tokens, read_label
from corpusgen.teachers.registry import check_parameters

INSTALLED = find_weights(MODELS["smollm2-135m"]) is not None and runtime_installed()
needs_weights = pytest.mark.skipif(not INSTALLED, reason="not installed; run: corpusgen teachers install smollm2-135m")
LABELS = ("animal", "food", "plant")
EXAMPLES = """Definition: a large wild cat with stripes
Kind: animal

Definition: a sweet baked dish with fruit
Kind: food

Definition: a tall tree with needles
Kind: plant

"""
QUESTIONS = ("a small bird with a long tail", "a hot soup of beans", "a shrub with red berries")


def open_embedded(servers: int = 1) -> Embedded:
    chosen = spec("embedded/smollm2-135m", in_flight=servers, free=True)
    return connect(chosen, folder=Path(), clock=TickingClock())


@asynccontextmanager
async def embedded(servers: int = 1) -> AsyncIterator[Embedded]:
    teacher = open_embedded(servers)
    try:
        yield teacher
    finally:
        await teacher.aclose()


async def ask(teacher: Embedded, question: str, **parameters: Any) -> Completion:
    asked = request(f"{EXAMPLES}Definition: {question}\nKind:", **{"temperature": 0, "top_logprobs": 100} | parameters)
    return teacher.read(asked, await teacher.ask(asked, timeout_s=120))


async def readings(teacher: Embedded, questions: Sequence[str]) -> list[LabelReading]:
    tokens = await teacher.first_tokens(LABELS)
    answers = await asyncio.gather(*(ask(teacher, question) for question in questions))
    return [read_label(LABELS, tokens, answer) for answer in answers]


def test_a_teacher_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(UnknownTeacher, match="corpusgen teachers install smollm2-135m"):
        open_embedded()


def test_another_model_is_refused_by_name() -> None:
    with pytest.raises(UnknownTeacher, match="no embedded model 'llama'; there are: smollm2-135m"):
        connect(spec("embedded/llama"), folder=Path(), clock=TickingClock())


@needs_weights
async def test_a_turn_that_says_more_than_text_is_refused_before_anything_is_started() -> None:
    async with embedded() as teacher:
        turns = [given_turn(turn) for turn in (CHAT[0], CHAT[2])]
        with pytest.raises(RequestRefused, match=r"turn 2 \(assistant\) holds reasoning_content, tool_calls, which"):
            await teacher.ask(asked("chat", *turns), timeout_s=1)
        assert teacher.processes() == ()


@pytest.mark.local
@needs_weights
async def test_it_answers_and_tells_its_processor_time() -> None:
    async with embedded() as teacher:
        tokens = await teacher.first_tokens(LABELS)
        assert tokens == (b" animal", b" food", b" plant")
        check_first_tokens(LABELS, tokens)
        asked = request(f"{EXAMPLES}Definition: {QUESTIONS[0]}\nKind:", temperature=0, top_logprobs=100)
        reply = await teacher.ask(asked, timeout_s=120)
        read = teacher.read(asked, reply)
    assert (reply.compute_us or 0) > 0
    assert read_label(LABELS, tokens, read).label == "animal"
    assert 0 < read.usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert read.model_served == "SmolLM2-135M-Instruct"


@pytest.mark.local
@needs_weights
async def test_servers_and_cache_states_agree_to_the_bit() -> None:
    async with embedded(2) as teacher:
        first = await readings(teacher, QUESTIONS)
        again = await readings(teacher, QUESTIONS[::-1])
        twice = await readings(teacher, QUESTIONS[:1] * 4)
    assert first == again[::-1]
    assert first[:1] * 4 == twice
    assert [reading.label for reading in first] == list(LABELS)


@pytest.mark.local
@needs_weights
async def test_values_are_the_models_own_whatever_the_sampling_and_however_many() -> None:
    async with embedded() as teacher:
        few = (await ask(teacher, QUESTIONS[0], top_logprobs=100)).logprobs
        many = (await ask(teacher, QUESTIONS[0], top_logprobs=2000, temperature=1.5, top_k=3, seed=7)).logprobs
    assert few is not None
    assert many is not None
    assert (few.topk_len, many.topk_len) == ((100,), (2000,))
    assert many.topk_ids is not None
    assert sum(math.exp(value) for value in many.at(0).values()) <= 1
    assert all(many.at(0)[token] == pytest.approx(value, abs=1e-4) for token, value in few.at(0).items())


@pytest.mark.local
@needs_weights
async def test_nothing_is_started_before_the_first_question() -> None:
    async with embedded() as teacher:
        assert teacher.processes() == ()
        await teacher.first_tokens(LABELS)
        started = teacher.processes()
        assert len(started) == 1
    assert teacher.processes() == ()
    assert not _runs(started[0])


@pytest.mark.local
@needs_weights
async def test_a_crash_is_a_fault_and_the_server_comes_back_three_times() -> None:
    async with embedded() as teacher:
        for _ in range(4):
            await teacher.first_tokens(LABELS)
            question = asyncio.create_task(ask(teacher, "word " * 1000))
            await asyncio.sleep(0.3)
            os.kill(teacher.processes()[0], signal.SIGKILL)
            with pytest.raises(TeacherFault, match="crashed"):
                await question
        with pytest.raises(NotSent, match="crashed 4 times; it stays down"):
            await ask(teacher, QUESTIONS[0])


@pytest.mark.local
@needs_weights
async def test_a_prompt_longer_than_the_context_is_refused_for_good() -> None:
    async with embedded() as teacher:
        with pytest.raises(RequestRefused, match="exceeds the available context size"):
            await ask(teacher, "word " * 5000)
        assert (await ask(teacher, QUESTIONS[0])).logprobs is not None


@pytest.mark.local
@needs_weights
async def test_weights_with_another_digest_are_not_served(tmp_path: Path) -> None:
    teacher = open_embedded()
    other = tmp_path / "other.gguf"
    other.write_bytes(b"other weights")
    with pytest.raises(RequestRefused, match=f"expected {MODELS['smollm2-135m'].sha256}"):
        await ask(replace(teacher, weights=other), QUESTIONS[0])


@pytest.mark.local
@needs_weights
def test_a_name_the_runtime_would_ignore_is_refused() -> None:
    card = open_embedded().card
    check_parameters(card, {"max_tokens": 1, "temperature": 0, "top_logprobs": 1000}, "completion")
    with pytest.raises(UnsupportedParameter, match="takes no parameter 'temprature'"):
        check_parameters(card, {"max_tokens": 1, "temprature": 0})
    with pytest.raises(UnsupportedParameter, match="max_tokens is at most 4096"):
        check_parameters(card, {"max_tokens": 5000})


PARENT = """
import asyncio, sys
from test_embedded import LABELS, open_embedded

async def main():
    teacher = open_embedded()
    await teacher.first_tokens(LABELS)
    print(teacher.processes()[0], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.local
@needs_weights
def test_servers_die_with_a_parent_that_is_killed() -> None:
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.kill()
    while _runs(server):
        pass


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
