"""What nobody knew the outcome of is settled by the provider's own figures, or on somebody's word."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from command import corpusgen
from flow_samples import NOON, asker_of, endpoint, open_corpus, prompt, prompts, states, violations, write_task
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_samples import server

from corpusgen.budget.ledger import Balance, balances
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import InvalidAnswer, TeacherError, TeacherTimeout, UsageError, UsageOverrun
from corpusgen.fanout.stream import answers
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import prompts as every_prompt
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.reconciling import accept, reconcile
from corpusgen.stages.task import request_for
from corpusgen.stages.verifying import verify
from corpusgen.store.answers import store_card
from corpusgen.store.usage_export import Billed, UsageExport, read_export
from corpusgen.teachers.scripted import ScriptedAnswer

RATE = Rate(input_per_mtok=10_000_000, output_per_mtok=10_000_000, version="v")
AT = microseconds(NOON)
DAY = (AT - 3_600_000_000, AT + 3_600_000_000)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    """Ten calls: six answered, four whose outcome is unknown, one of which said its name."""
    with open_corpus(tmp_path / "corpus") as opened:
        asyncio.run(ask(opened))
        yield opened


async def ask(corpus: Corpus) -> None:
    def rule(request: Any) -> ScriptedAnswer | TeacherError:
        number = int(request.messages[-1].content[-2:])
        error = TeacherTimeout("late") if number else InvalidAnswer("cut")
        error.request_id = None if number else "req-0"
        return error if number < 4 else ScriptedAnswer(text="hello")

    asker = asker_of(corpus, rule, rate=RATE, attempts=1, on_failure="drop", in_flight=1)
    await corpus.journal.run(lambda transaction: store_card(transaction, asker.card))
    async with answers(asker, prompts(10)) as records:
        assert len([record async for record in records]) == 6


def money(corpus: Corpus) -> Balance:
    return next(at for at in balances(corpus.journal, ["corpus"]) if at.unit == "microusd")


def calls(corpus: Corpus, state: str) -> list[tuple[int, bytes, str | None, int, int]]:
    return corpus.journal.query(
        "select call_id, request_key, provider_request_id, reserved_microusd, coalesce(microusd, 0) from calls"
        " where state = ? order by call_id",
        (state,),
    )


async def test_an_answer_that_is_refused_or_cut_off_leaves_its_name(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        named = {"x-request-id": "req-7"}
        if b"0000" in await request.read():
            return web.json_response({"error": "no"}, status=500, headers=named)
        cut = web.StreamResponse(headers=named | {"Content-Length": "100"})
        await cut.prepare(request)
        await cut.write(b"{")
        assert request.transport is not None
        request.transport.close()
        return cut

    async with server(answer) as url:
        task = load_task(write_task(tmp_path, items=2, teacher=endpoint(url)))
        with open_corpus(tmp_path / "corpus") as corpus:
            async with open_run(task, corpus, on_failure="drop") as run:
                asker = replace(run.asker, attempts=1)
                card = asker.teacher.card
                items = task.prompter.items("train")
                wanted = every_prompt(items, lambda item, n: request_for(task, card, item, n), samples=1)
                async with answers(asker, wanted) as records:
                    assert [record async for record in records] == []
            found = corpus.journal.query("select distinct state, provider_request_id from calls order by state")
            assert ("unknown", "req-7") in found
            assert {name for _, name in found} == {"req-7"}
            assert states(corpus.journal).total() == 2


def line(microusd: int, name: str | None = None, key: bytes | None = None, time_us: int | None = AT) -> Billed:
    return Billed(line=1, request_id=name, request_key=key, microusd=microusd, tokens=None, time_us=time_us)


def export_of(*lines: Billed) -> UsageExport:
    return UsageExport(name="usage.csv", sha256="ab" * 32, lines=lines)


def answered(corpus: Corpus) -> list[Billed]:
    """What the provider bills for the answers."""
    return [line(billed, name=name) for _, _, name, _, billed in calls(corpus, "settled")]


def test_a_failed_call_keeps_the_name_its_provider_gave_it(corpus: Corpus) -> None:
    assert [name for _, _, name, _, _ in calls(corpus, "unknown")] == ["req-0", None, None, None]
    assert all(name for _, _, name, _, _ in calls(corpus, "settled"))


def test_what_was_billed_is_confirmed_and_what_was_not_is_freed(corpus: Corpus) -> None:
    before, (_, second, *_) = money(corpus), calls(corpus, "unknown")
    export = export_of(*answered(corpus), line(70, name="req-0"), line(30, key=second[1]))
    found = reconcile(corpus, export, covers=DAY)
    assert ([change.used.microusd for change in found.confirmed], len(found.freed), found.kept) == ([70, 30], 2, 0)
    after = money(corpus)
    assert (after.settled, after.unconfirmed) == (before.settled + 100, 0)
    assert after.settled == export.microusd
    assert states(corpus.journal) == {"settled": 8, "released": 2}
    assert not violations(corpus.journal)
    assert not [at for at in verify(corpus) if at.check in ("ledger", "balances")]


def test_every_change_is_a_row_and_a_second_time_changes_nothing(corpus: Corpus) -> None:
    export = export_of(*answered(corpus), line(70, name="req-0"))
    reconcile(corpus, export, covers=DAY, by="ann")
    rows = corpus.journal.query(
        "select before, after, microusd_before > 0, microusd, by, reason, source_sha256 from reconciliations order by 1"
    )
    assert rows[0] == ("unknown", "settled", 1, 70, "ann", "usage export usage.csv", "ab" * 32)
    assert [row[1] for row in rows] == ["settled", "released", "released", "released"]
    dump = corpus.journal.query("select * from calls")
    again = reconcile(corpus, export, covers=DAY, by="ann")
    assert (again.confirmed, again.freed, again.kept) == ((), (), 0)
    assert corpus.journal.query("select * from calls") == dump
    assert corpus.journal.query("select count(*) from reconciliations") == [(4,)]


def test_a_line_of_no_known_call_may_be_of_any_that_is_unknown(corpus: Corpus) -> None:
    found = reconcile(corpus, export_of(*answered(corpus), line(5, name="somebody")), covers=DAY)
    assert (found.unmatched, len(found.freed), found.kept) == (1, 1, 3)  # only the call that said another name is freed
    assert "lines bill $0.000005 for no call" in found.notes[0]


def test_an_export_frees_nothing_outside_the_time_it_covers(corpus: Corpus) -> None:
    assert reconcile(corpus, export_of(*answered(corpus)), covers=(0, AT - 1)).kept == 4
    nowhere = reconcile(corpus, export_of(line(0, name="x", time_us=None)))
    assert (nowhere.kept, nowhere.notes) == (
        4,
        ("nothing is freed: not every line has a time, so say with --covers FROM/TO what the export covers",),
    )


def test_a_bill_above_the_promise_is_booked_in_full(corpus: Corpus) -> None:
    worst = calls(corpus, "unknown")[0][3]
    reconcile(corpus, export_of(*answered(corpus), line(worst + 1, name="req-0")), covers=DAY)
    assert states(corpus.journal)["overrun"] == 1
    assert money(corpus).settled == sum(billed.microusd for billed in answered(corpus)) + worst + 1
    assert not violations(corpus.journal)


@pytest.mark.parametrize("state", ["unknown", "settled"])
def test_a_teacher_that_an_export_bills_above_a_bound_is_asked_nothing_more_until_somebody_accepts_it(
    corpus: Corpus, state: str
) -> None:
    at, key, _, reserved, _ = calls(corpus, state)[-1]
    bill = export_of(line(reserved + 7, key=key))
    found = reconcile(corpus, bill)
    assert any(f"--accept {at} " in note for note in found.notes)
    told = f"used more in call {at} than was possible"
    with pytest.raises(UsageOverrun, match=told):
        asyncio.run(ask_one(corpus))
    assert not reconcile(corpus, bill).confirmed
    assert accept(corpus, [at], by="ann", reason="looked at it").notes
    assert not [note for note in reconcile(corpus, bill).notes if "--accept" in note]
    asyncio.run(ask_one(corpus))
    assert not violations(corpus.journal)


async def ask_one(corpus: Corpus) -> None:
    asker = asker_of(corpus, lambda _: ScriptedAnswer(text="more"), rate=RATE)
    async with answers(asker, [prompt("another question", 99)]) as records:
        assert len([record async for record in records]) == 1


def test_a_line_that_bears_our_name_of_a_batchs_line_is_of_that_call(corpus: Corpus) -> None:
    name = "corpusgen-0123456789abcdef"
    first, second, *_ = [row[0] for row in calls(corpus, "unknown")]

    def in_batch(transaction: Transaction) -> None:
        for number, call_id in enumerate((first, second)):
            sql = "update calls set batch_id = ?, batch_line = ? where call_id = ?"
            transaction.execute(sql, (name, number, call_id))

    corpus.journal.run_now(in_batch)
    found = reconcile(corpus, export_of(replace(line(3), custom_id=f"{name}-1")))
    assert [change.call.call_id for change in found.confirmed] == [second]
    assert (found.unmatched, len(found.freed)) == (0, 3)


def test_an_export_of_one_provider_frees_nothing_of_another(corpus: Corpus) -> None:
    def another(transaction: Transaction) -> None:
        text = corpus.journal.query("select card from cards")[0][0]
        card = json.loads(text) | {"provider": "else", "teacher": "else/m"}
        transaction.execute("insert into cards values('other', ?)", (json.dumps(card),))
        transaction.execute("update calls set teacher = 'else/m' where call_id = 2")

    corpus.journal.run_now(another)
    with pytest.raises(UsageError, match="several providers were asked here; say with --provider"):
        reconcile(corpus, export_of(), covers=DAY)
    with pytest.raises(UsageError, match="nobody called 'nobody' was asked here"):
        reconcile(corpus, export_of(), provider="nobody", covers=DAY)
    found = reconcile(corpus, export_of(), provider="else", covers=DAY)
    assert [change.call.call_id for change in found.freed] == [2]


LINES = st.lists(
    st.tuples(st.sampled_from(["known", "key", "stranger"]), st.integers(0, 9), st.integers(0, 2000)), max_size=12
)


@given(exports=st.lists(LINES, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_books_are_never_taken_below_what_an_export_bills(
    tmp_path_factory: pytest.TempPathFactory, exports: list[list[tuple[str, int, int]]]
) -> None:
    with open_corpus(tmp_path_factory.mktemp("books")) as corpus:
        asyncio.run(ask(corpus))
        keys = [row[0] for row in corpus.journal.query("select request_key from calls order by call_id")]
        for given_lines in exports:
            lines = [
                line(cost, name="req-0" if number == 0 else None, key=keys[number])
                if kind != "stranger"
                else line(cost, name=f"stranger-{number}")
                for kind, number, cost in given_lines
            ]
            before = money(corpus)
            export = export_of(*lines)
            found = reconcile(corpus, export, covers=DAY)
            after = money(corpus)
            books = after.settled + after.unconfirmed
            raised = sum(change.used.microusd - change.call.reserved.microusd for change in found.confirmed)
            assert books >= min(export.microusd, before.settled + before.unconfirmed + raised)
            assert not violations(corpus.journal)


# --- on somebody's word ----------------------------------------------------------------------------------------------


def test_what_is_accepted_counts_at_its_worst_case(corpus: Corpus) -> None:
    before, first = money(corpus), calls(corpus, "unknown")[0]
    accept(corpus, [first[0]], by="Ann", reason="support ticket 7")
    after = money(corpus)
    assert (after.settled - before.settled, before.unconfirmed - after.unconfirmed) == (first[3], first[3])
    rows = corpus.journal.query("select call_id, by, reason, source_sha256 from reconciliations")
    assert rows == [(first[0], "Ann", "support ticket 7", None)]


def test_what_somebody_vouches_was_not_billed_is_freed(corpus: Corpus) -> None:
    before = money(corpus)
    found = accept(corpus, None, by="Ann", reason="the invoice", unbilled=True)
    assert (len(found.freed), found.kept) == (4, 0)
    assert (money(corpus).settled, money(corpus).unconfirmed) == (before.settled, 0)
    requests = next(at for at in balances(corpus.journal, ["corpus"]) if at.unit == "requests")
    assert (requests.settled, requests.unconfirmed) == (10, 0)
    assert not violations(corpus.journal)


@pytest.mark.parametrize(
    ("given_ids", "by", "reason", "told"),
    [([1], "", "x", "--by NAME"), ([1], "Ann", " ", "--reason TEXT"), ([99], "Ann", "x", "99 are not unconfirmed")],
)
def test_a_word_needs_a_name_a_ground_and_calls(
    corpus: Corpus, given_ids: list[int], by: str, reason: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        accept(corpus, given_ids, by=by, reason=reason)
    assert states(corpus.journal)["unknown"] == 4


# --- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        if name.endswith(".csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            json.dump(rows if name.endswith(".list.json") else {"data": rows}, file)
    return path


@pytest.mark.parametrize("name", ["usage.csv", "usage.json", "usage.list.json"])
@pytest.mark.parametrize(
    "row",
    [
        {"Request ID": "r", "Cost (USD)": "0.000012", "Prompt Tokens": 3, "Completion Tokens": 4, "Created At": 5e9},
        {"request_id": "r", "cost_microusd": 12, "total_tokens": 7, "time": "2128-06-11T08:53:20Z"},
        {"id": "r", "amount": "$0.0000115", "tokens": "7", "timestamp": "2128-06-11T08:53:20+00:00", "currency": "USD"},
    ],
)
def test_exports_of_many_shapes_say_the_same(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    row = {key: int(value) if value == 5e9 else value for key, value in row.items()}
    path = write(tmp_path, name, [row])
    (found,) = read_export(path).lines
    assert (found.request_id, found.microusd, found.tokens, found.time_us) == ("r", 12, 7, 5_000_000_000_000_000)
    assert read_export(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"who": 1, "cost": 1}, "has no column that names the request; it may be called request_id"),
        ({"id": 1, "euros": 1}, "has no column with the cost; it may be called cost_usd"),
        ({"id": 1, "cost": -1}, "-1 must be 0 or more; leave refunds out"),
        ({"id": 1, "cost": "nan"}, "nan must be 0 or more"),
        ({"id": 1, "cost": "much"}, "'much' is not a number"),
        ({"id": 1, "cost": ""}, "names no cost; write 0 if it was not billed"),
        ({"id": 1, "cost": 1, "currency": "eur"}, "the cost must be in usd, found 'eur'"),
        ({"id": 1, "cost": 1, "time": "soon"}, "'soon' is not a time"),
    ],
)
def test_an_export_that_cannot_be_understood_is_refused_with_its_place(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        read_export(write(tmp_path, "usage.csv", [row]))


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b'{"data": 1}', b"[1, 2]", b"{"])
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "usage.json").write_bytes(raw)
    with pytest.raises(UsageError):
        read_export(tmp_path / "usage.json")


def test_the_command_confirms_frees_and_lists(corpus: Corpus, tmp_path: Path) -> None:
    rows = [{"request_id": at.request_id, "cost_microusd": at.microusd} for at in answered(corpus)]
    path = write(tmp_path, "usage.csv", [*rows, {"request_id": "req-0", "cost_microusd": 70}])
    folder = ("--corpus", corpus.folder)
    assert len(corpusgen("reconcile", *folder, "--json").object["unconfirmed"]) == 4
    dry = corpusgen("reconcile", path, *folder)
    assert "confirmed 1 call at $0.000070" in dry.stdout
    assert "nothing is freed" in dry.stderr
    ran = corpusgen("reconcile", path, *folder, "--covers", "2026-01-01/2026-01-01", "--json").object
    assert (len(ran["confirmed"]), len(ran["freed"]), ran["still_unconfirmed"]) == (0, 3, 0)
    for wrong in (("--covers", "soon"), ("--covers", "2026-01-02/2026-01-01"), ("--all",), ("--unbilled",)):
        assert corpusgen("reconcile", path, *folder, *wrong).code == 2
    assert corpusgen("reconcile", *folder, "--accept", "one", "--by", "a", "--reason", "b").code == 2
