"""What is seen of a corpus after the hammer: what is lost, doubled, paid twice or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus, utc_now
from corpusgen.mock.answer import read_question
from corpusgen.prompting.prompts import Prompt, prompts
from corpusgen.records import Record, digest
from corpusgen.stages.task import Task, connect, request_for
from corpusgen.stages.verifying import verify
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records
from corpusgen.teachers.wire import request_body


def booked(folder: Path) -> int:
    """Settled, promised and unconfirmed micro-dollars of a corpus."""
    with Corpus.open(folder, actor="hammer") as corpus:
        found = [balance for balance in balances(corpus.journal, ["corpus"]) if balance.unit == "microusd"]
        return sum(balance.settled + balance.promised + balance.unconfirmed for balance in found)


def contents(folder: Path) -> list[tuple[str, str]]:
    """Every record of a corpus, as its committed shards have it: id and digest of what was asked and said."""
    return [(record.record_id, _said(record)) for record in read_records(read_manifest(folder).paths(folder))]


def _said(record: Record) -> str:
    asked = [[message.role, message.content] for message in record.messages]
    return digest([asked, record.response, record.finish_reason, list(record.source_ids), record.sample_index])


def look(task: Task, folder: Path, bill: Mapping[str, Any], expected: Mapping[str, str], *, whole: bool) -> Any:
    """Everything that is wrong after the hammer, in figures; ``whole``: every expected record must be there."""
    with Corpus.open(folder, actor="hammer") as corpus:
        findings = [f"{found.check} {found.subject}: {found.message}" for found in verify(corpus)]
        calls = _Calls(corpus)
        asked = _asked(task)
        committed = contents(folder)
    found = dict(committed)
    answered = Counter(bill["answered"])
    delivered = {
        prompt.record_id
        for prompt, key in asked
        if answered[key] > calls.unconfirmed[prompt.request.key] or prompt.request.key in calls.kept
    }
    missing = (expected.keys() if whole else delivered) - found.keys()
    return {
        "records": len(found),
        "lost": len(missing),
        "doubled": len(committed) - len(found),
        "paid_twice": sum(_paid_twice(prompt, answered[key], calls) for prompt, key in asked),
        "wrong": sum(expected.get(name) != said for name, said in found.items()),
        "findings": findings,
    }


def _asked(task: Task) -> list[tuple[Prompt, str]]:
    """Every prompt, with the name under which the mock teacher counts it."""
    card = connect(task, utc_now).card
    every = prompts(task.prompter.items("train"), lambda item, n: request_for(task, card, item, n), samples=1)
    return [(prompt, read_question("chat", request_body(prompt.request)).key) for prompt in every]


class _Calls:
    """What the journal says of each request's calls."""

    def __init__(self, corpus: Corpus) -> None:
        query = corpus.journal.query
        unconfirmed = "select request_key, count(*) from calls where state = 'unknown' group by request_key"
        self.unconfirmed: Counter[bytes] = Counter(dict(query(unconfirmed)))
        self.kept: set[bytes] = {key for (key,) in query("select request_key from answers")}
        self.bought_again: set[bytes] = {
            key
            for (key,) in query(
                "select distinct c.request_key from calls c join answers a using (request_key)"
                " join calls k on k.call_id = a.call_id where c.call_id > k.call_id and c.reserved_us > k.closed_us"
            )
        }


def _paid_twice(prompt: Prompt, answered: int, calls: _Calls) -> bool:
    """True when an answer that a living process had was asked for again.

    The teacher counts answers it gave to the end; those whose reader was killed or had stopped waiting are unconfirmed.
    """
    key = prompt.request.key
    return key in calls.bought_again or answered > calls.unconfirmed[key] + (key in calls.kept)
