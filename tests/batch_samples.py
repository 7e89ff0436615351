"""A small task asked in batches of the loopback double, and everything that can be seen of it afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from batch_double import INPUT_TOKENS, OUTPUT_TOKENS, BatchDouble
from flow_samples import endpoint, violations, write_task

from corpusgen.batching.life import Patience
from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError
from corpusgen.pipeline import end_batches, run_task
from corpusgen.stages import opening
from corpusgen.stages.lanes import Lane, lane_of
from corpusgen.stages.loading import load_task
from corpusgen.stages.verifying import verify

HALF = {"input_usd_per_mtok": "5", "output_usd_per_mtok": "20"}
PRICE = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "double", "tiers": {"batch": HALF}}
ANSWER_MICROUSD = INPUT_TOKENS * 5 + OUTPUT_TOKENS * 20
HURRIED = Patience(grace_s=0.3, shortest_s=0.02, longest_s=0.05, failures=5)

Protocol = Literal["openai", "anthropic"]
PROTOCOLS: tuple[Protocol, ...] = ("openai", "anthropic")


def write_batch_task(
    folder: Path, url: str, words: list[str], protocol: Protocol = "openai", usd: str = "1", **asking: Any
) -> Path:
    """A task over these words for the double at an address."""
    fields = {"free": False, "price": PRICE, "parameters": {"max_tokens": 16}}
    teacher = endpoint(url, **fields)
    if protocol == "anthropic":
        teacher = endpoint(url.removesuffix("/v1"), name="anthropic/claude", key_env="BATCH_KEY", **fields)
    asked = {"lane": "batch"} | asking
    path = write_task(folder, items=len(words), teacher=teacher, budget={"usd": usd}, asking=asked)
    rows = [{"id": f"w{at}", "word": word} for at, word in enumerate(words)]
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


@dataclass(kw_only=True)
class Seen:
    """What came of a start."""

    told: dict[str, Any] = field(default_factory=dict)
    raised: CorpusgenError | None = None
    states: Counter[str] = field(default_factory=Counter)
    batches: list[tuple[str, str | None]] = field(default_factory=list)
    """State and provider's name of each."""
    records: int = 0
    settled_microusd: int = 0
    booked_microusd: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What contradicts the ledger's promises or does not verify."""


async def start(
    folder: Path, path: Path, monkeypatch: Any, *, cancel: bool = False, stop_at: str = "", **fields: Any
) -> Seen:
    """Run a task as ``corpusgen run`` does, in a hurry; ``fields`` are of the batcher."""
    seen = Seen()
    hurry(monkeypatch, stop_at, **fields)
    with Corpus.open(folder / "corpus", actor="tester") as corpus:
        try:
            if cancel:
                seen.told = await end_batches(load_task(path), corpus, opened=[])
            else:
                seen.told = await run_task(load_task(path), corpus, opened=[])
        except CorpusgenError as error:
            seen.raised = error
        look(corpus, seen)
    return seen


def hurry(monkeypatch: Any, stop_at: str = "", **fields: Any) -> None:
    """Let nobody wait long for a batch; a run is asked to stop when it has passed a step."""

    def hurried(*given: Any) -> Lane:
        lane = lane_of(*given)
        if lane.batcher is None:
            return lane

        def passed(step: str) -> None:
            if step == stop_at:
                lane.asker.stopping.set()

        return replace(lane, batcher=replace(lane.batcher, **{"patience": HURRIED, "passed": passed, **fields}))

    monkeypatch.setattr(opening, "lane_of", hurried)
    monkeypatch.setenv("BATCH_KEY", "sk-batch-0123456789")


def look(corpus: Corpus, seen: Seen) -> None:
    """Note what a corpus holds."""
    query = corpus.journal.query
    seen.states = Counter(dict(query("select state, count(*) from calls group by 1")))
    seen.batches = [(row[0], row[1]) for row in query("select state, provider_batch_id from batches order by 2")]
    seen.records = query("select count(*) from records")[0][0]
    settled = "select coalesce(sum(microusd), 0), coalesce(sum(iif(state = 'unknown', reserved_microusd, 0)), 0)"
    paid, unknown = query(f"{settled} from calls")[0]
    seen.settled_microusd, seen.booked_microusd = paid, paid + unknown
    seen.drops = Counter(dict(query("select reason, count(*) from drops where stage glob 'ask:*' group by 1")))
    seen.wrong = violations(corpus.journal) + [f"{one.check} {one.subject}: {one.message}" for one in verify(corpus)]


def bill_microusd(double: BatchDouble) -> int:
    """What the double has charged for, at the batch price."""
    return double.charged.total() * ANSWER_MICROUSD
