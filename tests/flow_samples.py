"""Small tasks, corpora and teachers for the tests of the flow from prompt to record."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import own_key  # noqa: F401 - for its effect
import yaml
from aiohttp import web
from teacher_samples import chat_reply

from corpusgen.assemble import RunFacts
from corpusgen.budget.amounts import UNITS
from corpusgen.budget.ledger import Cap, Ledger, balances
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.fanout.asker import Asker
from corpusgen.fields import Unit
from corpusgen.journal import Journal
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.records import Message, Request
from corpusgen.store.answers import Card
from corpusgen.teachers.scripted import Rule, ScriptedAnswer, scripted

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = "run:r1"

PROMPT = """---
name: words
licence: Apache-2.0
api: chat
inputs: [word]
---
user:
Say something about {word}.
"""


def fixed_clock() -> datetime:
    return NOON


def open_corpus(folder: Path) -> Corpus:
    """A corpus in which it is always noon and there is one run."""
    return Corpus.open(folder, clock=fixed_clock, new_run_id=lambda: "r1", actor="tester")


def write_task(folder: Path, *, items: int = 20, distinct: int | None = None, **changes: Any) -> Path:
    """A free-text task over numbered words; ``distinct`` makes the words repeat, ``teacher`` overrides its fields."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [{"id": f"w{at:04}", "word": f"word {at % (distinct or items):04}"} for at in range(items)]
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, words)))
    (folder / "prompt.md").write_text(PROMPT)
    (folder / "script.yaml").write_text("default: {text: hello}\n")
    teacher = {"name": "scripted/test", "parameters": {"max_tokens": 8}, "script": "script.yaml", "free": True}
    spec = {
        "name": "words",
        "prompt": "prompt.md",
        "input": "word",
        "kind": "response",
        "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
        "sources": [{"id": "words", "title": "Words", "licence": "CC0-1.0"}],
        "seeds": {"train": {"path": "words.jsonl", "source": "words"}},
        "asking": {"order": "file", "limit": items} | changes.pop("asking", {}),
        "teachers": [teacher | changes.pop("teacher", {})],
    } | changes
    (folder / "task.yaml").write_text(yaml.safe_dump(spec))
    return folder / "task.yaml"


def endpoint(url: str, **fields: Any) -> dict[str, Any]:
    """The fields that make a task ask a loopback server."""
    named = {"name": "endpoint/m", "base_url": url, "provider": "corpusgen", "route": "mock", "script": None}
    return named | fields


@dataclass(kw_only=True)
class Server:
    """An OpenAI-compatible server that counts what it is asked; the same question always gets the same answer."""

    latency_s: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    now: int = 0
    most: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        question = orjson.loads(await request.read())["messages"][-1]["content"]
        self.asked[question] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.now -= 1
        self.answered[question] += 1
        reply = chat_reply({"content": f"about {question[-10:]}"}, id=f"id-{question[-5:-1]}")
        return web.json_response(reply)


# --- without a task: an asker and prompts of one's own ----------------------------------------------------------------


def prompt(text: str, ordinal: int = 0, **parameters: Any) -> Prompt:
    messages = (Message(role="user", content=text),)
    item = Item(item_id=text, split="train", input=text, messages=messages, source_ids=("s#1",), gold=None)
    asked = {"max_tokens": 4, **parameters}
    request = Request(teacher="script:function", model="test", api="chat", messages=messages, parameters=asked)
    return Prompt(item=item, request=request, ordinal=ordinal)


def prompts(count: int, **parameters: Any) -> Iterator[Prompt]:
    return (prompt(f"prompt {at:05}", at, **parameters) for at in range(count))


def saying(text: str = "hello", **fields: Any) -> Rule:
    """A rule that always says the same."""
    return lambda _: ScriptedAnswer(text=text, **fields)


FREE = Rate(input_per_mtok=0, output_per_mtok=0, version="free")


def asker_of(corpus: Corpus, rule: Rule, *, labels: tuple[str, ...] | None = None, **fields: Any) -> Asker:
    """An asker of a scripted teacher."""
    teacher = scripted(rule, clock=corpus.clock)
    card = teacher.card
    return Asker(
        **{
            "corpus": corpus,
            "ledger": Ledger(corpus.journal),
            "teacher": teacher,
            "rate": FREE,
            "card": Card(
                teacher=card.name,
                provider=card.provider,
                model=card.model,
                route=card.route,
                host=card.host,
                identity=card.identity,
                revision="",
                terms_set_id="t",
                terms_ids=("t",),
                outputs_train="allowed",
            ),
            "facts": RunFacts(
                run_id="r1",
                task="words",
                kind="label" if labels else "response",
                spec_digest="s",
                prompt_digest="p",
                licence_expression="CC0-1.0",
                label_names=labels,
                first_tokens=None if labels is None else tuple(f" {label}".encode() for label in labels),
            ),
            "scopes": (RUN, "corpus"),
            "timeout_s": 60.0,
            "in_flight": 4,
            "sleep": no_sleep,
            **fields,
        }
    )


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


# --- the ledger's promises --------------------------------------------------------------------------------------------


def cap(amount: int, unit: Unit = "requests", scope: str = RUN) -> Cap:
    return Cap(scope=scope, unit=unit, cap=amount, origin="test")


def states(journal: Journal) -> Counter[str]:
    """How many calls there are in each state."""
    return Counter(dict(journal.query("select state, count(*) from calls group by state")))


def violations(journal: Journal, *, excused: Iterable[tuple[str, Unit]] = ()) -> list[str]:
    """What contradicts the ledger's promises: caps passed, and balances that are not the sum of their calls.

    ``excused`` are accounts whose cap was lowered below what was used, or whose teacher billed above its bound.
    """
    found = []
    calls = journal.query(
        f"select scopes, state, {', '.join(f'reserved_{unit}' for unit in UNITS)}, {', '.join(UNITS)} from calls"
    )
    spans = journal.query("select scopes, wall_us from spans")
    nothing = ", ".join("0" for _ in UNITS)
    calls += journal.query(
        f"select scopes, 'promised', {', '.join(UNITS)}, {nothing} from leases where ended_us is null"
    )
    for balance in balances(journal):
        total = balance.settled + balance.promised + balance.unconfirmed
        name = (balance.scope, balance.unit)
        if balance.cap is not None and total > balance.cap and name not in set(excused):
            found.append(f"{name}: {total} is above the cap of {balance.cap}")
        booked = _summed(calls, *name) if balance.unit != "wall_us" else _passed(spans, balance.scope)
        kept = {"settled": balance.settled, "promised": balance.promised, "unconfirmed": balance.unconfirmed}
        if booked != kept:
            found.append(f"{name}: the balance is {kept}, the calls say {booked}")
    return found


def _summed(calls: list[tuple[Any, ...]], scope: str, unit: Unit) -> Mapping[str, int]:
    sums = {"settled": 0, "promised": 0, "unconfirmed": 0}
    at = UNITS.index(unit)
    for scopes, state, *amounts in calls:
        if scope in scopes.split("\n"):
            sums["settled"] += amounts[len(UNITS) + at] or 0
            sums["promised"] += amounts[at] if state == "promised" else 0
            sums["unconfirmed"] += amounts[at] if state == "unknown" else 0
    return sums


def _passed(spans: list[tuple[Any, ...]], scope: str) -> Mapping[str, int]:
    settled = sum(wall_us for scopes, wall_us in spans if scope in scopes.split("\n"))
    return {"settled": settled, "promised": 0, "unconfirmed": 0}


@contextmanager
def journal_in(folder: Path) -> Iterator[Journal]:
    journal = Journal(folder / "journal.sqlite", clock_us=lambda: 0)
    try:
        yield journal
    finally:
        journal.close()
