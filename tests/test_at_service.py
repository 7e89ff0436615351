"""Runs with a corpus of their own that borrow from a service: one budget, and no answer is paid for twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import corpusgen
from flow_samples import endpoint, write_task
from serve_samples import Served, new_token, served, served_by_child, service_yaml
from task_samples import write_label_task

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.leases import Borrower, Leases
from corpusgen.budget.ledger import Cap, Intent, Ledger, balances
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, ServiceUnavailable, UnknownTeacher, UsageError
from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.pipeline import run_task
from corpusgen.records import Json
from corpusgen.serve.tokens import revoke
from corpusgen.stages.at_service import running as at_service
from corpusgen.stages.at_service.wire import Address, address
from corpusgen.stages.budgeting import set_budget
from corpusgen.stages.loading import load_task
from corpusgen.stages.planning import plan
from corpusgen.stages.runs import Run
from corpusgen.stages.verifying import verify
from corpusgen.teachers.transport import Secret

SCRIPTED = """\
intended_use: {student_distribution: internal, student_competes: "no", commercial: false}
teachers: [{name: scripted/test, script: task/SCRIPT, free: true, parameters: {max_tokens: 1}}]
"""
PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "4", "source": "mock teacher"}


def task(folder: Path, mock: MockTeacher, items: int = 40, most: int = 64, **changes: Any) -> Path:
    """A task that asks the mock about so many words."""
    asked = endpoint(
        mock.base_url, name="endpoint/mock-model", price=PRICE, in_flight=8, parameters={"max_tokens": most}, free=False
    )
    return write_task(folder, items=items, teacher=asked, budget={"usd": 5}, **changes)


def at(one: Served, token: str | None = None, **changes: Any) -> Address:
    return Address(url=one.url, token=token and Secret(token), **{"patience_s": 2.0} | changes)  # type: ignore[arg-type]


async def run(spec: Path, corpus: Path, service: Address, **options: Any) -> dict[str, Json]:
    """A run in this process with a corpus of its own."""
    runs: list[Run] = []
    with Corpus.open(corpus) as opened:
        try:
            return await run_task(load_task(spec), opened, opened=runs, service=service, **options)
        finally:
            assert verify(opened) == []


def figures(one: Served, scope: str = "service", unit: str = "microusd") -> tuple[int, int, int]:
    """Settled, promised and unconfirmed at the service."""
    found = [at for at in balances(one.corpus.journal, [scope]) if at.unit == unit]
    return (found[0].settled, found[0].promised, found[0].unconfirmed) if found else (0, 0, 0)


def billed(one: Served) -> int:
    return int(one.bill["billed_microusd"])


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to be")


async def test_a_second_machine_with_the_same_spec_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        spec = task(tmp_path / "task", one.mock)
        first = await run(spec, tmp_path / "a", at(one))
        paid = one.bill
        second = await run(spec, tmp_path / "b", at(one))
        assert (first["requests"], first["records"]) == (40, 40)
        assert (second["requests"], second["records"], second["elsewhere"]) == (0, 40, 40)
        assert one.bill == paid
        assert paid["requests"] == 40


async def test_a_share_is_never_drawn_from_beyond_what_was_lent(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        set_budget(one.corpus, "service", {"microusd": 1_000})
        with pytest.raises(BudgetExhausted):
            await run(task(tmp_path / "task", one.mock, items=60), tmp_path / "a", at(one))
        assert 0 < billed(one) <= 1_000
        assert figures(one) == (billed(one), 0, 0)


async def test_what_the_service_has_settled_is_what_the_teacher_billed(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        await run(task(tmp_path / "task", one.mock), tmp_path / "a", at(one, calls=5))
        assert figures(one) == (billed(one), 0, 0)
        assert figures(one, "teacher:endpoint/mock-model") == (billed(one), 0, 0)
        assert figures(one, unit="requests") == (40, 0, 0)
        assert verify(one.corpus) == []


async def test_two_machines_at_once_pay_what_one_run_costs(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.02) as one:
        spec = task(tmp_path / "task", one.mock, items=60)
        found = await asyncio.gather(*(run(spec, tmp_path / name, at(one)) for name in ("a", "b")))
        assert [each["records"] for each in found] == [60, 60]
        assert one.bill["requests"] == 60
        assert figures(one) == (billed(one), 0, 0)


async def test_two_machines_under_one_cap_keep_to_it_and_use_it(tmp_path: Path) -> None:
    cap = 6_000
    async with served(tmp_path, latency_s=0.01) as one:
        set_budget(one.corpus, "service", {"microusd": cap})
        specs = [task(tmp_path / name, one.mock, items=200, most=20) for name in ("x", "y")]
        words = specs[1].parent / "words.jsonl"
        words.write_text(words.read_text().replace("word ", "other "))
        runs = (run(spec, spec.parent / "corpus", at(one)) for spec in specs)
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert all(isinstance(error, BudgetExhausted) for error in ended), ended
        assert "the cap of $0.006000 usd for service is used up" in str(ended[0])
        assert one.url in str(ended[0])
        assert cap * 0.95 <= billed(one) <= cap
        assert figures(one) == (billed(one), 0, 0)


async def test_a_local_cap_binds_as_well(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        with pytest.raises(BudgetExhausted, match="--budget requests"):
            await run(task(tmp_path / "task", one.mock), tmp_path / "a", at(one), caps={"requests": 10})
        assert one.bill["requests"] == 10
        assert figures(one) == (billed(one), 0, 0)


async def test_a_cap_of_nothing_at_the_service_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        set_budget(one.corpus, "corpus", {"requests": 0})
        with pytest.raises(BudgetExhausted):
            await run(task(tmp_path / "task", one.mock), tmp_path / "a", at(one))
        assert one.bill["requests"] == 0


async def test_what_a_teacher_refuses_or_leaves_open_is_reported_as_that(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        spec = task(tmp_path / "task", one.mock, items=12)
        words = (tmp_path / "task" / "words.jsonl").read_text().replace("word 0003", "word fault:close-in-body*1")
        (tmp_path / "task" / "words.jsonl").write_text(words)
        await run(spec, tmp_path / "a", at(one))
        with Corpus.open(tmp_path / "a", reading=True) as corpus:
            here = {found.unit: found for found in balances(corpus.journal, ["corpus"])}["microusd"]
        assert here.unconfirmed > 0
        assert figures(one) == (here.settled, 0, here.unconfirmed)


async def test_a_free_teacher_is_lent_requests_and_its_answers_are_shared_too(tmp_path: Path) -> None:
    spec = write_task(tmp_path / "task", items=20)
    async with served(tmp_path, config=SCRIPTED.replace("SCRIPT", "script.yaml")) as one:
        await run(spec, tmp_path / "a", at(one))
        assert figures(one, unit="requests") == (20, 0, 0)
        assert (await run(spec, tmp_path / "b", at(one)))["requests"] == 0


async def test_a_plan_knows_what_the_service_has_answers_to(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        spec = task(tmp_path / "task", one.mock)
        with Corpus.open(tmp_path / "b") as corpus:
            assert (await plan(load_task(spec), corpus, service=at(one))).to_send == 40
            await run(spec, tmp_path / "a", at(one))
            assert (await plan(load_task(spec), corpus, service=at(one))).to_send == 0


async def test_who_wants_much_makes_do_with_less_and_in_the_end_with_one_call(tmp_path: Path) -> None:
    with Corpus.open(tmp_path) as corpus:
        ledger, one = Ledger(corpus.journal), Amounts(requests=1)
        await ledger.set_caps([Cap(scope="corpus", unit="requests", cap=41, origin="test")])
        borrower = Borrower(lender=Leases(journal=corpus.journal), calls=32)
        for _ in range(41):
            await borrower.reserve(_intent(one))
        rows = corpus.journal.query("select count(*) from leases")[0][0]
        assert (rows < 12, [at.promised for at in balances(corpus.journal, ["corpus"]) if at.cap]) == (True, [41])
        await borrower.aclose()


def _intent(worst: Amounts) -> Intent:
    return Intent(
        run_id="r",
        request_key=os.urandom(32),
        teacher="t",
        role="label:train",
        attempt=1,
        worst=worst,
        scopes=("corpus",),
        price_version="test",
    )


async def test_short_leases_are_renewed_while_their_calls_last(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.3) as one:
        spec = task(tmp_path / "task", one.mock, items=24)
        found = await run(spec, tmp_path / "a", at(one, lease_s=1.0, calls=200))
        assert found["records"] == 24
        assert figures(one) == (billed(one), 0, 0)


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_runner_that_is_killed_costs_no_more_than_was_lent_and_makes_good_for_it_later(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.05) as one:
        spec = task(tmp_path / "task", one.mock, items=200)
        child = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
            [sys.executable, __file__, str(spec), str(tmp_path / "a"), one.url, "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await until(lambda: int(one.bill["requests"]) >= 20)
        child.send_signal(signal.SIGKILL)
        child.wait()
        await until(lambda: figures(one)[2] > 0 and figures(one)[1] == 0)
        assert billed(one) <= sum(figures(one))
        await run(spec, tmp_path / "a", at(one))
        settled, promised, unconfirmed = figures(one)
        with Corpus.open(tmp_path / "a", reading=True) as corpus:
            here = {found.unit: found for found in balances(corpus.journal, ["corpus"])}["microusd"]
        assert (settled, promised, unconfirmed) == (here.settled, 0, here.unconfirmed)
        assert settled <= billed(one) <= settled + unconfirmed
        before = one.bill
        assert (await run(spec, tmp_path / "b", at(one)))["requests"] == 0
        assert one.bill == before


async def test_a_service_that_is_away_at_the_start_is_told_and_nothing_is_sent(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        spec = task(tmp_path / "task", mock)
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await run(spec, tmp_path / "a", Address(url="http://127.0.0.1:9", patience_s=0.5))
        assert mock.bill.requests == 0


async def test_a_service_may_be_restarted_in_the_middle(tmp_path: Path) -> None:
    async with mock_teacher(Options(latency_s=0.03)) as mock:
        spec = task(tmp_path / "task", mock, items=150)
        config = tmp_path / "service.yaml"
        config.write_text(service_yaml(mock))
        with served_by_child(tmp_path / "s", config=config) as first:
            port = first.url.rpartition(":")[2]
            service = Address(url=first.url, patience_s=60.0, calls=8)
            running = asyncio.create_task(run(spec, tmp_path / "a", service))
            await until(lambda: mock.bill.requests >= 30 or running.done())
            first.end(signal.SIGKILL)
        await asyncio.sleep(0.3)
        with served_by_child(tmp_path / "s", "--port", port, config=config):
            assert (await running)["records"] == 150
        with Corpus.open(tmp_path / "s", reading=True) as corpus:
            there = {found.unit: found for found in balances(corpus.journal, ["service"])}["microusd"]
        assert (there.settled, there.unconfirmed) == (mock.bill.to_json()["billed_microusd"], 0)
        assert mock.bill.requests == 150


async def test_a_service_that_goes_for_good_ends_the_run_and_is_told_of_it_all_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_service, "END_S", 0.5)
    async with mock_teacher(Options(latency_s=0.03)) as mock:
        spec = task(tmp_path / "task", mock, items=150)
        config = tmp_path / "service.yaml"
        config.write_text(service_yaml(mock))
        with served_by_child(tmp_path / "s", config=config) as first:
            port = first.url.rpartition(":")[2]
            running = asyncio.create_task(run(spec, tmp_path / "a", Address(url=first.url, patience_s=0.5, calls=16)))
            await until(lambda: mock.bill.requests >= 30 or running.done())
            first.end(signal.SIGKILL)
        with pytest.raises(ServiceUnavailable, match="every answer is kept"):
            await running
        sent = mock.bill.requests
        assert sent <= 30 + 3 * 16
        with served_by_child(tmp_path / "s", "--port", port, config=config) as again:
            assert (await run(spec, tmp_path / "a", Address(url=again.url)))["records"] == 150
            assert mock.bill.requests == 150
            assert (await run(spec, tmp_path / "b", Address(url=again.url)))["requests"] == 0
        with Corpus.open(tmp_path / "s", reading=True) as corpus:
            there = {found.unit: found for found in balances(corpus.journal, ["service"])}["microusd"]
        assert (there.settled, there.unconfirmed) == (mock.bill.to_json()["billed_microusd"], 0)


async def test_a_teacher_that_the_service_does_not_pay_for_is_not_asked(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        with pytest.raises(UnknownTeacher, match=r"service\.yaml"):
            await run(write_task(tmp_path / "task", items=20), tmp_path / "a", at(one))


async def test_a_wrong_token_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        one.token("lend")
        spec = task(tmp_path / "task", one.mock)
        for token in (None, "cg_" + "x" * 43, one.token("read")):
            with pytest.raises(UsageError, match="CORPUSGEN_SERVICE_TOKEN"):
                await run(spec, tmp_path / "a", at(one, token))
        assert one.bill["requests"] == 0


async def test_a_token_that_is_revoked_in_the_middle_ends_the_run(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.05) as one:
        token, secret = new_token(one.corpus, "lend")
        spec = task(tmp_path / "task", one.mock, items=300)
        running = asyncio.create_task(run(spec, tmp_path / "a", at(one, secret, calls=8)))
        await until(lambda: int(one.bill["requests"]) >= 20 or running.done())
        revoke(one.corpus, token.token_id, by="a test")
        with pytest.raises(UsageError, match="CORPUSGEN_SERVICE_TOKEN"):
            await running
        assert int(one.bill["requests"]) < 300
        assert billed(one) <= sum(figures(one))


async def test_leases_of_a_token_are_booked_on_it(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        token, secret = new_token(one.corpus, "lend", user="bea")
        await run(task(tmp_path / "task", one.mock), tmp_path / "a", at(one, secret))
        assert figures(one, f"token:{token.token_id}") == (billed(one), 0, 0)
        assert figures(one, "user:bea") == (billed(one), 0, 0)


# --- address and token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "ftp://127.0.0.1",
        "127.0.0.1:8080",
        "https://me:secret@example.com",
        "https://example.com/?token=x",
        "https://example.com#x",
        "http://127.0.0.1.example.com",
        "http://[::2]",
        "https://exa mple.com",
        "https://",
        "https://h:x",
    ],
)
def test_an_address_that_would_not_be_safe_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--service"):
        address(url, {})


@pytest.mark.parametrize("url", ["https://example.com", "http://127.0.0.1:1", "http://localhost:1/", "http://[::1]:1"])
def test_other_addresses_are_taken(url: str) -> None:
    assert address(url, {}).url == url.rstrip("/")


def test_the_token_comes_from_the_environment_or_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("cg_secret\n")
    file.chmod(0o644)
    named = {"CORPUSGEN_SERVICE_TOKEN_FILE": str(file)}
    with pytest.raises(UsageError, match="chmod 600"):
        address("https://example.com", named)
    file.chmod(0o600)
    found = address("https://example.com", named)
    assert found.token is not None
    assert found.token.reveal() == "cg_secret"
    assert "cg_secret" not in repr(found)
    with pytest.raises(UsageError, match="both"):
        address("https://example.com", named | {"CORPUSGEN_SERVICE_TOKEN": "cg_x"})


def test_batches_are_not_paid_out_of_leases(tmp_path: Path) -> None:
    spec = write_task(tmp_path / "task", asking={"lane": "batch"})
    done = corpusgen("run", spec, "--corpus", tmp_path / "a", "--service", "http://127.0.0.1:9")
    assert (done.code, "--service" in done.stderr) == (2, True)


def test_distill_borrows_too_and_its_answers_are_known_to_the_next(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path / "task")
    (tmp_path / "service.yaml").write_text(SCRIPTED.replace("SCRIPT", "answers.yaml"))
    with served_by_child(tmp_path / "s", config=tmp_path / "service.yaml") as service:
        done = [
            corpusgen("distill", spec, "--corpus", tmp_path / name, "--service", service.url, "--quiet", "--json")
            for name in ("a", "b")
        ]
    first, second = (each.object for each in done)
    assert first["requests"] > 0
    assert (second["requests"], second["elsewhere"]) == (0, first["requests"])
    assert second["teacher_accuracy"] == first["teacher_accuracy"]


def test_the_command_tells_of_a_service_that_is_away(tmp_path: Path) -> None:
    spec = write_task(tmp_path / "task")
    done = corpusgen("run", spec, "--corpus", tmp_path / "a", "--service", "http://127.0.0.1:9", "--quiet")
    assert (done.code, "http://127.0.0.1:9 does not answer" in done.stderr) == (7, True)


def _work(spec: str, corpus: str, url: str, lease_s: str) -> None:
    asyncio.run(run(Path(spec), Path(corpus), Address(url=url, lease_s=float(lease_s))))


if __name__ == "__main__":
    _work(*sys.argv[1:])
