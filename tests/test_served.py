"""Who really answered is told by ``status`` and by the report, for calls one by one and for batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_samples import start, write_batch_task
from command import corpusgen
from flow_samples import open_corpus

from corpusgen.mock.server import Options, mock_teacher
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.loading import load_task
from corpusgen.stages.served import served_models

WORDS = ["one", "fault:wrong-model", "two"]
SAID = "1 record of endpoint/m came from another model: somebody-else-7b"


async def asked(folder: Path, monkeypatch: Any, **asking: Any) -> dict[str, Any]:
    """Ask the mock teacher, who answers one of three in another model's name."""
    async with mock_teacher(Options(batch_delay_s=0.0)) as mock:
        seen = await start(folder, write_batch_task(folder, mock.base_url, WORDS, **asking), monkeypatch)
    assert (seen.records, seen.raised, seen.wrong) == (3, None, [])
    return seen.told


@pytest.mark.parametrize("lane", ["live", "batch"])
async def test_status_says_who_answered_instead_of_the_model_that_was_asked(
    lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await asked(tmp_path, monkeypatch, lane=lane)
    assert told["other_models"] == {"somebody-else-7b": 1}
    assert SAID in corpusgen("status", "--corpus", tmp_path / "corpus").stdout
    models = corpusgen("status", "--corpus", tmp_path / "corpus", "--json").object["models"]
    assert [(one["asked"], one["served"], one["records"], one["another"]) for one in models] == [
        ("m", "m", 2, False),
        ("m", "somebody-else-7b", 1, True),
    ]


async def test_the_report_says_it_beside_the_teacher(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        task = load_task(write_batch_task(tmp_path, mock.base_url, WORDS, lane="live"))
        with open_corpus(tmp_path / "corpus") as corpus:
            await distill(Distillation(task=task, corpus=corpus), report=tmp_path / "report.html")
    assert "<b>somebody-else-7b: 1 record, another model than was asked</b>" in (tmp_path / "report.html").read_text()


async def test_a_shard_that_cannot_be_read_leaves_status_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await asked(tmp_path, monkeypatch, lane="live")
    (shard,) = (tmp_path / "corpus").glob("shards/*/*.parquet")
    shard.write_bytes(b"no shard")
    with open_corpus(tmp_path / "corpus") as corpus:
        assert served_models(corpus) is None
    told = corpusgen("status", "--corpus", tmp_path / "corpus")
    assert (told.code, "who answered cannot be told" in told.stdout) == (0, True)
