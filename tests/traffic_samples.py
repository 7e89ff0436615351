"""Traffic with planted clusters: what was asked, and which cluster each call is of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from flow_samples import asker_of

from corpusgen.assemble import RunFacts
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.records import Message, Request
from corpusgen.spec import TaskSpec
from corpusgen.store.answers import Card, store_card
from corpusgen.teachers.scripted import ScriptedAnswer

BEGIN = datetime(2026, 11, 10, tzinfo=UTC)
SUBJECTS = (
    "parcel",
    "invoice",
    "screen",
    "battery",
    "cable",
    "login",
    "refund",
    "router",
    "garden",
    "kettle",
    "jacket",
    "ticket",
    "hotel",
)
VERBS = (
    "arrived",
    "broke",
    "vanished",
    "flickered",
    "failed",
    "returned",
    "doubled",
    "stalled",
    "worked",
    "shipped",
    "leaked",
    "melted",
)
PLACES = ("yesterday", "in Leeds", "after the update", "at the depot", "during lunch", "without warning", "on Monday")
MOODS = ("Positive", "Negative", "Neutral")
QUEUES = ("billing", "delivery", "hardware", "account", "other")
TRIAGE = (
    "You sort customer messages for a shop. Read the message and answer with the name of one queue only. "
    "The queues are billing, delivery, hardware, account and other. Never explain yourself."
)
AGENT = (
    "You are an agent that books trips for employees. Use the functions that you are given, ask before you pay, and "
    "stay within the travel rules of the company at all times."
)
RAG = "Answer the question from the documents below. Say so where they do not answer it. Documents: "
TOOLS = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}]
TALK = (
    "why does bread go stale faster in the fridge",
    "tell me something about the moons of Jupiter",
    "draft a birthday wish for my aunt who likes sailing",
    "my knee hurts when running downhill, any exercises",
    "explain recursion to a ten year old",
    "what should we cook for eight guests",
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One call, the cluster it was planted in, and what came back."""

    cluster: str
    request: dict[str, Any]
    answer: str
    cost_usd: float
    at: datetime


def sentence(draw: random.Random, words: int = 3) -> str:
    """A customer's sentence or several."""
    told = (f"The {draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(PLACES)}" for _ in range(words))
    said = [*told, f"Case {draw.randrange(10**6)} {draw.choice(VERBS)} {draw.choice(PLACES)}"]
    draw.shuffle(said)
    return ". ".join(said)


def _mood(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    asked = f"What is the mood of this review? Answer with one word.\n\nReview: {text}\n\nMood:"
    return [{"role": "user", "content": asked}], draw.choice(MOODS)


def _triage(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    return [{"role": "system", "content": TRIAGE}, {"role": "user", "content": text}], draw.choice(QUEUES)


def _extract(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    asked = f"Order {draw.randrange(10**5)} came with this note: {text} Give product, place and urgency as JSON."
    told = {"product": draw.choice(SUBJECTS), "place": draw.choice(PLACES), "urgency": draw.randrange(5)}
    return [{"role": "user", "content": asked}], orjson.dumps(told).decode()


def _translate(language: str, draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    return [
        {"role": "user", "content": f"Translate the following text into {language}: {text}"}
    ], f"[{language}] {text}"


def _summary(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    return [{"role": "user", "content": f"{text}\n\nSum up the text above in one plain sentence."}], f"In short: {text}"


def _rag(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    document = " ".join(sentence(draw, 2) for _ in range(6))
    turns = [{"role": "system", "content": RAG + document}, {"role": "user", "content": f"Which {text}"}]
    return turns, f"According to the documents, {text}"


def _agent(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    turns = [{"role": "system", "content": AGENT}, {"role": "user", "content": text}]
    for _ in range(draw.randrange(3)):
        turns += [{"role": "assistant", "content": sentence(draw, 1)}, {"role": "user", "content": sentence(draw, 1)}]
    return turns, ""


def _talk(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    asked = draw.choice(TALK).split()
    asked.insert(draw.randrange(len(asked)), draw.choice(SUBJECTS))
    turns = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": " ".join(asked)},
    ]
    return turns, f"{text} {sentence(draw, 5)}"


def _ping(draw: random.Random, text: str) -> tuple[list[dict[str, str]], str]:
    return [{"role": "user", "content": "Say pong."}], "pong"


PLANTED: dict[str, tuple[Any, float, float]] = {
    "mood": (_mood, 0.22, 0.0004),
    "triage": (_triage, 0.2, 0.0009),
    "extract": (_extract, 0.12, 0.0006),
    "german": (lambda draw, text: _translate("German", draw, text), 0.08, 0.0005),
    "french": (lambda draw, text: _translate("French", draw, text), 0.08, 0.0005),
    "summary": (_summary, 0.08, 0.0007),
    "rag": (_rag, 0.08, 0.002),
    "agent": (_agent, 0.06, 0.004),
    "talk": (_talk, 0.05, 0.001),
    "ping": (_ping, 0.03, 0.0001),
}
"""Each cluster with its share of the calls and what one costs."""


def planted(count: int, *, seed: int = 1, repeats: float = 0.1) -> Iterator[Planted]:
    """So many calls over a week, the same for the same seed; some of them asked again word for word."""
    draw = random.Random(seed)
    names, shares = list(PLANTED), [share for _, share, _ in PLANTED.values()]
    said: dict[str, tuple[list[dict[str, str]], str]] = {}
    for at in range(count):
        name = draw.choices(names, shares)[0]
        make, _, cost = PLANTED[name]
        if name not in said or draw.random() >= repeats:
            said[name] = make(draw, sentence(draw))
        turns, answer = said[name]
        request = {"model": "gpt-4.1-mini", "messages": turns, "temperature": 0, "max_tokens": 400}
        if name == "agent":
            request["tools"] = TOOLS
        when = BEGIN + timedelta(seconds=at * 7 * 86_400 / count)
        yield Planted(cluster=name, request=request, answer=answer, cost_usd=cost, at=when)


def reply_of(one: Planted) -> dict[str, Any]:
    """The body that came back."""
    message: dict[str, Any] = {"role": "assistant", "content": one.answer}
    if one.cluster == "agent":
        call = {"id": "c1", "type": "function", "function": {"name": "book", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4.1-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
    }


def log_line(one: Planted) -> dict[str, Any]:
    """A call as the plainest of logs has it."""
    return {
        "request": one.request,
        "response": reply_of(one),
        "timestamp": one.at.isoformat(),
        "cost_usd": one.cost_usd,
        "user": "ann",
    }


def write_log(path: Path, calls: list[Planted]) -> Path:
    """A log of some calls."""
    path.write_bytes(b"".join(orjson.dumps(log_line(one)) + b"\n" for one in calls))
    return path


# --- Recorded in a corpus --------------------------------------------------------------------------------------------

SPEC = {
    "name": "traffic",
    "prompt": "prompt.md",
    "input": "text",
    "kind": "response",
    "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
    "sources": [{"id": "calls", "title": "Calls", "licence": "CC0-1.0", "acquisition": "own"}],
    "seeds": {"train": {"path": "seeds.jsonl", "source": "calls"}},
    "asking": {"order": "file"},
    "teachers": [
        {
            "name": "endpoint/m",
            "base_url": "http://127.0.0.1:9/v1",
            "provider": "corpusgen",
            "route": "mock",
            "free": True,
            "parameters": {"max_tokens": 400},
        }
    ],
}
CARD = Card(
    teacher="endpoint/m",
    provider="corpusgen",
    model="m",
    route="mock",
    host="127.0.0.1",
    identity="script:function",
    revision="",
    terms_set_id="corpusgen-scripted",
    terms_ids=("corpusgen-scripted",),
    outputs_train="allowed",
)


def record(folder: Path, calls: list[Planted]) -> Path:
    """A corpus that has recorded some calls, each for two thousandths of a cent; the same call is recorded once."""
    times = {_question(one): one.at for one in reversed(calls)}
    said = {_question(one): one.answer or "-" for one in calls}
    now = [BEGIN]
    with Corpus.open(folder, clock=lambda: now[0], new_run_id=lambda: "r1", actor="ann") as corpus:
        corpus.journal.run_now(_begun)

        def rule(request: Request) -> ScriptedAnswer:
            turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
            now[0] = max(now[0], times[_key(turns)])
            return ScriptedAnswer(text=said[_key(turns)])

        rate = Rate(input_per_mtok=0, output_per_mtok=20_000_000, version="test")
        asker = asker_of(corpus, rule, card=CARD, facts=FACTS, rate=rate, in_flight=1)
        first = {_question(one): one for one in reversed(calls)}
        asyncio.run(_asked(asker, [_prompt(one, at) for at, one in enumerate(reversed(first.values()))]))
    return folder


FACTS = RunFacts(
    run_id="r1",
    task="traffic",
    kind="response",
    spec_digest="s",
    prompt_digest="p",
    licence_expression="CC0-1.0",
    label_names=None,
    first_tokens=None,
)


def _begun(transaction: Transaction) -> None:
    store_card(transaction, CARD)
    spec = TaskSpec.model_validate_json(orjson.dumps(SPEC)).model_dump_json()
    columns = "run_id, task, spec_digest, spec, facts, status, started_us"
    values = ("r1", "traffic", "s", spec, FACTS.to_json(), "open", transaction.now_us)
    transaction.execute(f"insert into runs({columns}) values(?, ?, ?, ?, ?, ?, ?)", values)


def _prompt(one: Planted, ordinal: int) -> Prompt:
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in one.request["messages"])
    request = Request(
        teacher="script:function",
        model="test",
        api="chat",
        messages=messages,
        parameters={"max_tokens": 400, "temperature": 0},
        tools=one.request.get("tools"),
    )
    text = messages[-1].content
    item = Item(item_id=f"c{ordinal}", split="train", input=text, messages=messages, source_ids=("calls#1",), gold=None)
    return Prompt(item=item, request=request, ordinal=ordinal)


async def _asked(asker: Asker, prompts: list[Prompt]) -> None:
    async with answers(asker, prompts) as records:
        async for _ in records:
            pass


def _question(one: Planted) -> str:
    return _key(one.request["messages"])


def _key(turns: list[dict[str, str]]) -> str:
    return "\0".join(f"{turn['role']}\0{turn['content']}" for turn in turns)
