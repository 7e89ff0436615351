"""A small task asked of the mock teacher through the whole stack, and everything that can be seen of it afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from flow_samples import endpoint, no_sleep, open_corpus, violations, write_task

from corpusgen.budget.ledger import balances
from corpusgen.errors import CorpusgenError, RateLimited, TeacherError
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.mock.answer import answer_to, read_question
from corpusgen.mock.bill import Prices
from corpusgen.mock.server import MockTeacher, Options
from corpusgen.prompting.prompts import prompts
from corpusgen.records import Record, Request
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.pool import unique_pool
from corpusgen.stages.runs import Run
from corpusgen.stages.sieving import Notes
from corpusgen.stages.task import request_for
from corpusgen.teachers.billing import NOTHING_KNOWN, Billing
from corpusgen.teachers.endpoint import Endpoint
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.rates import Ticket
from corpusgen.teachers.wire import request_body

PRICES = Prices(input_per_mtok=10_000_000, output_per_mtok=40_000_000)
MAX_TOKENS = 32


class HurriedPacer(Pacer):
    """Notes the pauses it is asked for, and makes none."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def failed(self, ticket: Ticket, error: TeacherError) -> None:
        if isinstance(error, RateLimited) or error.retry_after_s is not None:
            self.pauses.append(error.retry_after_s)

    async def turn(self, input_tokens: int = 0, output_tokens: int = 0) -> Ticket:
        return Ticket(0, 0.0, input_tokens, output_tokens, False)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One row of the ledger."""

    state: str
    error: str | None
    microusd: int
    tokens: int
    reserved_microusd: int


@dataclass(kw_only=True)
class Outcome:
    """What came of asking."""

    mock: MockTeacher
    records: list[Record] = field(default_factory=list)
    raised: CorpusgenError | None = None
    calls: list[Call] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    pauses: list[float | None] = field(default_factory=list)
    booked: dict[str, int] = field(default_factory=dict)
    """Settled, promised and unconfirmed together, by unit."""
    contradictions: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return [record.input for record in self.records]

    def record(self, text: str) -> Record:
        """The record whose input contains a text."""
        return next(record for record in self.records if text in record.input)


def options(**fields: Any) -> Options:
    """A mock teacher with the prices of the task, whose slow faults do not hold anybody for long."""
    return Options(**{"prices": PRICES, "slow_s": 3.0, **fields})


def said(record: Record) -> str:
    """What the mock teacher says to the question of a record."""
    parameters = {"max_tokens": MAX_TOKENS}
    request = Request(
        teacher="", model=record.model_requested, api="chat", messages=record.messages, parameters=parameters
    )
    return answer_to(read_question("chat", request_body(request))).text


def write_mock_task(
    folder: Path, url: str, words: list[str], *, timeout_s: float = 20.0, usd: str = "1", in_flight: int = 1
) -> Path:
    """A task over these words for the mock teacher at an address."""
    price = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "mock teacher"}
    asked = {"max_tokens": MAX_TOKENS}
    teacher = endpoint(url, free=False, price=price, parameters=asked, in_flight=in_flight, timeout_s=timeout_s)
    path = write_task(folder, items=len(words), teacher=teacher, budget={"usd": usd})
    rows = [{"id": f"w{at}", "word": word} for at, word in enumerate(words)]
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


async def ask(
    folder: Path,
    mock: MockTeacher,
    words: list[str],
    *,
    url: str | None = None,
    timeout_s: float = 20.0,
    attempts: int = 2,
    billing: Billing | None = NOTHING_KNOWN,
    usd: str = "1",
    in_flight: int = 1,
) -> Outcome:
    """Ask about each word, one after the other or several at once, and look at everything afterwards.

    ``billing`` stands in for what is known of the provider; None keeps what the shipped table says.
    """
    path = write_mock_task(folder, url or mock.base_url, words, timeout_s=timeout_s, usd=usd, in_flight=in_flight)
    outcome = Outcome(mock=mock)
    task = load_task(path)
    with open_corpus(folder / "corpus") as corpus:
        async with open_run(task, corpus, on_failure="drop") as run:
            pacer = HurriedPacer()
            asker = replace(run.asker, attempts=attempts, sleep=no_sleep, pacer=pacer)
            assert isinstance(asker.teacher, Endpoint)
            if billing is not None:
                asker.teacher.transport.billing = billing
            await _read(run, asker, outcome)
            outcome.pauses = pacer.pauses
        _look(run, outcome)
    return outcome


async def _read(run: Run, asker: Asker, outcome: Outcome) -> None:
    task, card = run.task, asker.teacher.card
    pool = unique_pool(task, Notes(journal=asker.corpus.journal))
    wanted = prompts(iter(pool.items), lambda item, n: request_for(task, card, item, n), samples=1)
    try:
        async with answers(asker, wanted) as records:
            outcome.records.extend([record async for record in records])
    except CorpusgenError as error:
        outcome.raised = error
    outcome.drops = asker.counts.drops


def _look(run: Run, outcome: Outcome) -> None:
    journal = run.corpus.journal
    rows = journal.query("select state, error, microusd, tokens, reserved_microusd from calls order by call_id")
    outcome.calls = [
        Call(state=row[0], error=row[1], microusd=row[2] or 0, tokens=row[3] or 0, reserved_microusd=row[4])
        for row in rows
    ]
    outcome.booked = {
        str(found.unit): found.settled + found.promised + found.unconfirmed for found in balances(journal, ["corpus"])
    }
    outcome.contradictions = violations(journal)
