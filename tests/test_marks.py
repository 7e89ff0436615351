from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from flow_samples import open_corpus, write_task
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen import marks
from corpusgen.curation.exact import told_apart
from corpusgen.marks import Marks, mark_of
from corpusgen.pipeline import generate, run_task
from corpusgen.stages.loading import load_task

MANY = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=30), max_size=20)


@given(portions=MANY)
@settings(deadline=None)
def test_marks_are_a_set_however_they_come_and_however_small_they_are_packed(portions: list[list[int]]) -> None:
    seen, expected = Marks(), set[int]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(marks, "PACK", 5)
        for portion in portions:
            known = seen.known(portion)
            new = seen.add(portion)
            for at, mark in enumerate(portion):
                assert known[at] is (mark in expected)
                assert new[at] is (mark not in expected and mark not in portion[:at])
            expected.update(portion)
        assert seen.known(list(expected)) == [True] * len(expected)
    assert len(seen) == len(expected)


def test_marks_take_eight_bytes_each() -> None:
    seen = Marks()
    tracemalloc.start()
    for start in range(0, 400_000, 4_000):
        seen.add([mark_of(str(number)) for number in range(start, start + 4_000)])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 400_000 * 8 + marks.PACK * 120


def test_texts_that_share_a_mark_cannot_be_written_in_advance() -> None:
    code = "from corpusgen.marks import mark_of; print(mark_of('x'))"
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 2
    assert mark_of("x") == mark_of("x") != mark_of("y")


@given(texts=st.lists(st.sampled_from(["a", "A ", "b", "c  d", "C D", "e"]), max_size=400))
def test_of_equal_texts_the_first_is_new(texts: list[str]) -> None:
    said: set[str] = set()
    for text, new in told_apart(texts, text=str, seen=Marks()):
        folded = " ".join(text.lower().split())
        assert new is (folded not in said)
        said.add(folded)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of more than a handful are large."""
    monkeypatch.setattr("corpusgen.stages.writing.HELD", 5)
    monkeypatch.setattr("corpusgen.stages.writing.REPEATS_AT_ONCE", 3)
    monkeypatch.setattr(marks, "PACK", 7)


@pytest.mark.parametrize("order", ["file", "random"])
async def test_a_large_pool_is_asked_as_a_small_one_is(
    tmp_path: Path, order: str, request: pytest.FixtureRequest
) -> None:
    found: list[list[tuple[Any, ...]]] = []
    for name in ("held", "streamed"):
        if name == "streamed":
            request.getfixturevalue("small")
        task = load_task(write_task(tmp_path / name, items=40, distinct=30, asking={"order": order, "limit": 20}))
        with open_corpus(tmp_path / name / "corpus") as corpus:
            await run_task(task, corpus, opened=[])
            sql = "select ordinal, item_id, hex(record_id) from records order by ordinal"
            drops = "select stage, item_id, reason, repeat_of from drops order by item_id"
            found.append([*corpus.journal.query(sql), *corpus.journal.query(drops)])
    assert found[0] == found[1]
    assert len(found[0]) == 20 + 10


async def test_what_a_run_holds_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusgen.teachers.scripted.MOST_NOTED", 10)
    monkeypatch.setattr(marks, "PACK", 256)
    monkeypatch.setattr("corpusgen.store.fresh.MOST_BYTES", 100_000)  # a window of its own, and bounded
    held: list[int] = []
    for items in (600, 2_400):
        task = write_task(tmp_path / str(items), items=items)
        with open_corpus(tmp_path / str(items) / "corpus") as corpus:
            async with generate(task, corpus) as records:
                taken = 0
                async for _ in records:
                    taken += 1
                    if taken == 500:
                        tracemalloc.start()
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
                tracemalloc.stop()
    assert held[1] < held[0] + 1_800 * 512  # a record and its answer are some 3 kB
