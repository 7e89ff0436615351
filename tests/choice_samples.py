"""Tasks whose answers are asked for several to a call, in front of a mock teacher."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from flow_samples import open_corpus, write_task

from corpusgen.mock.answer import DIALECT_OF, answer_to, read_question, reply_to
from corpusgen.mock.bill import Prices
from corpusgen.mock.plan import KINDS
from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.pipeline import run_task
from corpusgen.records import Record
from corpusgen.stages.loading import load_task
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records

MAX_TOKENS = 32
PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1", "source": "mock teacher"}


def exact_teacher(**fields: Any) -> AbstractAsyncContextManager[MockTeacher]:
    """A mock teacher at a micro-dollar a token, whose bill needs no rounding."""
    prices = Prices(input_per_mtok=1_000_000, output_per_mtok=1_000_000)
    return mock_teacher(Options(**{"prices": prices, "slow_s": 1.0, **fields}))


def write_choices(folder: Path, url: str, words: list[str], *, samples: int, per_call: int, **changes: Any) -> Path:
    """A task that asks for so many answers about each word, so many of them in one call."""
    asking = {"samples": samples, "samples_per_call": per_call, **changes.pop("asking", {})}
    teacher = {
        "name": "vllm/m",
        "base_url": url,
        "provider": "corpusgen",
        "route": "mock",
        "script": None,
        "free": False,
        "price": PRICE,
        "parameters": {"max_tokens": MAX_TOKENS},
        "in_flight": 4,
        **changes.pop("teacher", {}),
    }
    if (others := changes.pop("others", None)) is not None:
        changes["teachers"] = [teacher, *others]
    path = write_task(folder, items=len(words), teacher=teacher, asking=asking, **{"budget": {"usd": 1}, **changes})
    rows = [{"id": f"w{at}", "word": word} for at, word in enumerate(words)]
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


@dataclass(kw_only=True)
class Repeating:
    """Says the same to the same request, to the byte and however often, with the faults that its words ask for."""

    asked: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One call."""
        self.asked += 1
        await asyncio.sleep(0.01)
        question = read_question("chat", await request.read())
        reply = reply_to(question, answer_to(question))
        named = question.text.partition("fault:")[2].rstrip(".")
        change = KINDS[named].change if named else None
        return web.json_response(reply if change is None else change(DIALECT_OF["chat"], reply))


async def run(path: Path, folder: Path) -> dict[str, Any]:
    """Run a task to its end and say what came of it. Raises PartialFailure."""
    with open_corpus(folder) as corpus:
        return await run_task(load_task(path), corpus, opened=[])


def records(folder: Path) -> list[Record]:
    """The committed records, by item and sample."""
    found = read_records(read_manifest(folder).paths(folder))
    return sorted(found, key=lambda record: (record.source_ids, record.sample_index))
