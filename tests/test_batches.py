"""Batches are paid for once, whatever becomes of them and of the process that handed them over."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from batch_double import BatchDouble, batch_double
from batch_samples import ANSWER_MICROUSD, PROTOCOLS, Protocol, bill_microusd, hurry, start, write_batch_task
from command import corpusgen
from flow_samples import write_task

from corpusgen.budget.ledger import Ledger
from corpusgen.corpus import Corpus, utc_now
from corpusgen.errors import BudgetExhausted, Interrupted, PartialFailure, RequestRefused, UsageOverrun
from corpusgen.mock.bill import Prices
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.pipeline import generate
from corpusgen.spec import load_spec
from corpusgen.stages.verifying import verify
from corpusgen.teachers.batches import lines_of
from corpusgen.teachers.transport import Transport

PRICES = Prices(input_per_mtok=10_000_000, output_per_mtok=40_000_000)

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def words(count: int, mark: str = "") -> list[str]:
    return [f"word {at:03} {mark}".strip() for at in range(count)]


@every_protocol
async def test_a_batch_brings_every_answer_at_half_the_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(20), protocol, batch_size=8)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states) == (None, 20, {"settled": 20})
    assert seen.settled_microusd == bill_microusd(double) == 20 * ANSWER_MICROUSD
    assert len(double.batches) == 3
    assert not double.live
    assert seen.wrong == []


@every_protocol
async def test_a_second_start_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(5), protocol)
        await start(tmp_path, path, monkeypatch)
        seen = await start(tmp_path, path, monkeypatch)
    assert seen.told["known"] == 5
    assert len(double.batches) == 1


@every_protocol
@pytest.mark.parametrize(
    "mark", ["fault*1", "silent*1", "expired*1", "canceled*1", "missing*1", "garbage*1", "invalid*1"]
)
async def test_what_a_batch_did_not_answer_is_asked_again_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, mark: str
) -> None:
    asked = [*words(4), *(f"other {at} mark:{mark}" for at in range(3))]
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, asked, protocol)
        seen = await start(tmp_path, path, monkeypatch)
    paid_in_vain = mark.partition("*")[0] in ("missing", "garbage", "invalid")
    assert (seen.raised, seen.records, len(double.batches)) == (None, 7, 2)
    assert seen.states["settled"] == 7
    assert seen.states["unknown" if paid_in_vain else "released"] == 3
    assert seen.booked_microusd >= bill_microusd(double)
    assert seen.wrong == []


@every_protocol
async def test_a_refused_request_is_dropped_with_its_reason_and_its_neighbours_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, [*words(4), "bad mark:refused"], protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert isinstance(seen.raised, PartialFailure)
    assert (seen.records, seen.drops, len(double.batches)) == (4, {"RequestRefused": 1}, 1)
    assert seen.wrong == []


async def test_what_fails_for_ever_is_given_up_and_never_asked_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, [*words(3), "bad mark:fault"])
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.records, seen.drops, len(double.batches)) == (3, {"TeacherFault": 1}, 4)
    assert not double.live


@every_protocol
async def test_results_that_come_twice_or_belong_to_nobody_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(6, "mark:twice"), protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states) == (None, 6, {"settled": 6})
    assert seen.settled_microusd == bill_microusd(double)
    assert seen.wrong == []


async def test_a_batch_refused_as_a_whole_owes_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble(refuse="model m does not do batches")) as double:
        path = write_batch_task(tmp_path, double.base_url, words(3))
        seen = await start(tmp_path, path, monkeypatch)
    assert isinstance(seen.raised, RequestRefused)
    assert "line 1: model m does not do batches" in str(seen.raised)
    assert (seen.states, seen.booked_microusd, seen.wrong) == ({"released": 3}, 0, [])


@every_protocol
async def test_a_batch_whose_submission_got_no_reply_is_found_and_not_handed_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble(lose_replies=1, late_s=0.1)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(6), protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, len(double.batches)) == (None, 6, 1)
    assert seen.settled_microusd == bill_microusd(double)
    assert seen.wrong == []


@every_protocol
async def test_a_submission_that_never_arrived_frees_its_calls_and_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble(lose_requests=1)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(6), protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, len(double.batches)) == (None, 6, 1)
    assert seen.states == {"released": 6, "settled": 6}
    assert sorted(state for state, _ in seen.batches) == ["ended", "freed"]


@every_protocol
async def test_a_download_that_breaks_off_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble(cut_results=2)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(30), protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states) == (None, 30, {"settled": 30})
    assert seen.wrong == []


@every_protocol
async def test_stopping_leaves_the_batch_where_it_is_and_the_same_command_collects_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble(work_s=0.5)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(6), protocol)
        first = await start(tmp_path, path, monkeypatch, stop_at="submitted")
        second = await start(tmp_path, path, monkeypatch)
    assert isinstance(first.raised, Interrupted)
    assert " go on at the provider" in str(first.raised)
    assert (first.states, first.wrong) == ({"promised": 6}, [])
    assert (second.raised, second.records, len(double.batches)) == (None, 6, 1)


async def test_no_more_is_handed_over_than_fits_under_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(40), usd="0.005")
        seen = await start(tmp_path, path, monkeypatch)
    assert isinstance(seen.raised, BudgetExhausted)
    assert 0 < seen.records == seen.states["settled"] < 40
    assert bill_microusd(double) == seen.settled_microusd <= 5_000
    assert len(double.batches) > 1  # what a batch cost less than its worst case pays for the next
    assert seen.wrong == []


async def test_a_bill_above_the_worst_case_is_booked_in_full_and_stops_the_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, [*words(3), "dear mark:overrun"], usd="100")
        seen = await start(tmp_path, path, monkeypatch)
    assert isinstance(seen.raised, UsageOverrun)
    assert seen.states == {"settled": 3, "overrun": 1}
    assert seen.settled_microusd >= 10**6 * 20
    assert seen.records == 4


@every_protocol
async def test_a_cancelled_batch_keeps_what_was_answered_and_owes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    async with batch_double(BatchDouble(work_s=60)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(6), protocol)
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
        seen = await start(tmp_path, path, monkeypatch, cancel=True)
    assert (seen.raised, seen.told["batches"]) == (None, 1)
    assert seen.states == {"settled": 3, "released": 3}
    assert seen.settled_microusd == bill_microusd(double)
    assert seen.wrong == []


async def test_a_batch_the_provider_no_longer_knows_says_so_and_can_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(3))
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
        double.batches.clear()
        seen = await start(tmp_path, path, monkeypatch)
        ended = await start(tmp_path, path, monkeypatch, cancel=True)
    assert isinstance(seen.raised, RequestRefused)
    assert "was it handed over with another key?" in str(seen.raised)
    assert (seen.states, ended.states) == ({"promised": 3}, {"unknown": 3})
    assert ended.wrong == []


async def test_a_live_run_waits_for_what_is_in_a_batch_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_double(BatchDouble(work_s=0.4)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(4))
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
        path = write_batch_task(tmp_path, double.base_url, words(6), lane="live", limit=6)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records) == (None, 6)
    assert (double.live.total(), double.charged.total()) == (2, 6)


@pytest.mark.parametrize(("deadline", "count", "batches"), [(48, 120, 1), (3, 120, 0), (48, 20, 0)])
async def test_auto_takes_batches_where_time_and_number_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadline: int, count: int, batches: int
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(count), lane="auto", deadline=deadline)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, len(double.batches)) == (None, count, batches)
    assert double.live.total() == (0 if batches else count)


async def test_auto_asks_by_itself_what_batches_did_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*words(119), "other mark:expired"]
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, asked, lane="auto", deadline=48)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, double.live.total(), len(double.batches)) == (None, 120, 1, 1)


async def test_verify_finds_promises_of_a_batch_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_double(BatchDouble(work_s=60)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(4))
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
    with Corpus.open(tmp_path / "corpus") as corpus:
        assert verify(corpus) == []
        corpus.journal.run_now(lambda tx: tx.execute("update batches set state = 'ended'") and None)
        assert [one.check for one in verify(corpus)] == ["batches"]


async def test_a_batch_whose_answers_came_from_elsewhere_meanwhile_is_collected_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "shared"))
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(4))
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
        other = tmp_path / "other"
        other.mkdir()
        await start(other, path, monkeypatch)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states) == (None, 4, {"settled": 4})
    assert [state for state, _ in seen.batches] == ["ended"]
    assert seen.wrong == []


async def test_recovery_leaves_the_calls_of_a_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_double(BatchDouble(work_s=60)) as double:
        path = write_batch_task(tmp_path, double.base_url, words(4))
        await start(tmp_path, path, monkeypatch, stop_at="submitted")
        with Corpus.open(tmp_path / "corpus") as corpus:
            assert await Ledger(corpus.journal).recover() == 0
            assert corpus.journal.query("select distinct state from calls") == [("promised",)]


# --- the mock teacher, by the front door ------------------------------------------------------------------------------


@every_protocol
@pytest.mark.parametrize(
    "fault",
    [
        "batch-lost*1",
        "batch-listed-late*1",
        "batch-results-cut*1",
        "batch-results-reset*1",
        "batch-line-missing*1",
        "batch-line-twice",
        "batch-line-stray",
        "500*1",
    ],
)
async def test_the_books_agree_with_the_bill_to_the_micro_dollar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, fault: str
) -> None:
    async with mock_teacher(Options(batch_delay_s=0.2, prices=PRICES)) as mock:
        path = write_batch_task(tmp_path, mock.base_url, [*words(7), f"other fault:{fault} "], protocol)
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states["settled"]) == (None, 8, 8)
    assert seen.settled_microusd == seen.booked_microusd == mock.bill.microusd
    assert set(mock.bill.charged.values()) == {1}
    assert seen.wrong == []


@contextmanager
def mock_in_a_thread(**options: float) -> Iterator[str]:
    """The address of a mock teacher that answers commands of this process."""
    ready: queue.Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        async with mock_teacher(Options(prices=PRICES, **options)) as mock:  # type: ignore[arg-type] # seconds
            over = asyncio.Event()
            ready.put((mock.base_url, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    url, loop, over = ready.get(timeout=30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def test_plan_names_the_price_of_batches_and_their_day(tmp_path: Path) -> None:
    folders = {"live": tmp_path / "live", "batch": tmp_path / "batch"}
    plans = {}
    for lane, folder in folders.items():
        path = write_batch_task(folder, "http://127.0.0.1:9/v1", words(20), lane=lane)
        plans[lane] = corpusgen("plan", path, "--corpus", folder / "corpus", "--json").object
    assert plans["batch"]["lane"] == "batch"
    assert plans["batch"]["wall_s"]["high"] == 86_400
    assert plans["batch"]["microusd"]["high"] == pytest.approx(plans["live"]["microusd"]["high"] / 2, rel=0.01)
    told = corpusgen("plan", folders["batch"] / "task.yaml", "--corpus", tmp_path / "c").stdout
    assert "in batches, at the price of batches" in told


def test_a_teacher_without_batches_is_refused_at_plan_with_the_line(tmp_path: Path) -> None:
    path = write_task(tmp_path, asking={"lane": "batch"})
    ran = corpusgen("plan", path, "--corpus", tmp_path / "corpus")
    line = next(at for at, text in enumerate(path.read_text().splitlines(), 1) if "lane:" in text)
    assert ran.code == 2
    assert f"task.yaml:{line}: asking.lane: scripted/test" in ran.stderr
    assert "write lane: live" in ran.stderr


@pytest.mark.parametrize(
    ("asking", "said"),
    [({"lane": "auto"}, "auto needs deadline"), ({"lane": "batch", "deadline": 30}, "is for lane: auto")],
)
def test_a_deadline_belongs_to_auto_and_auto_to_a_deadline(
    tmp_path: Path, asking: dict[str, object], said: str
) -> None:
    ran = corpusgen("plan", write_task(tmp_path, asking=asking), "--corpus", tmp_path / "corpus")
    assert (ran.code, said in ran.stderr) == (2, True)


def test_another_lane_is_no_other_task(tmp_path: Path) -> None:
    specs = [
        load_spec(write_task(tmp_path / str(at), asking=asking)).spec
        for at, asking in enumerate([{}, {"lane": "batch"}, {"lane": "auto", "deadline": 30, "batch_size": 5}])
    ]
    assert len({spec.identity for spec in specs}) == 1


def test_a_live_run_reads_no_sdk(tmp_path: Path) -> None:
    path = write_task(tmp_path, items=2)
    code = f"main(['run', {str(path)!r}, '--corpus', {str(tmp_path / 'corpus')!r}, '--quiet'])"
    listed = (
        f"import atexit, sys; from corpusgen.cli.main import main; atexit.register(lambda: print(*sys.modules)); {code}"
    )
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, timeout=60)
    assert "2 records" in done.stdout, done.stderr
    assert not {"openai", "anthropic", "httpx2"} & set(done.stdout.split())


def test_status_lists_batches_and_run_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus"
    with mock_in_a_thread(batch_delay_s=12.0) as url:
        path = write_batch_task(tmp_path, url, words(5))
        asyncio.run(start(tmp_path, path, monkeypatch, stop_at="submitted"))
        (batch,) = corpusgen("status", "--corpus", corpus, "--json").object["batches"]
        told = corpusgen("status", "--corpus", corpus).stdout
        verified = corpusgen("verify", "--corpus", corpus)
        asked = corpusgen("query", "select state, requests from batches", "--corpus", corpus, "--json").object["rows"]
        monkeypatch.undo()
        ended = corpusgen("run", path, "--corpus", corpus, "--cancel-batches", "--quiet", "--json")
        after = corpusgen("status", "--corpus", corpus, "--json").object
    assert (batch["requests"], batch["state"], batch["promised_microusd"] > 0) == (5, "submitted", True)
    assert batch["provider_batch_id"] in told
    assert (verified.code, asked) == (0, [{"state": "submitted", "requests": 5}])
    assert (ended.code, ended.object["batches"], after["batches"], after["in_flight"]) == (0, 1, [], 0)


async def test_labels_left_out_of_the_runners_up_are_asked_for_in_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("sport", "music", "tools", "plants", "birds", "metals")
    changes = {"kind": "label", "labels": {"names": list(names)}}
    async with mock_teacher(Options(batch_delay_s=0.2, prices=PRICES, labels=names)) as mock:
        path = write_batch_task(tmp_path, mock.base_url, words(12), order="random")
        spec = yaml.safe_load(path.read_text()) | changes
        spec["teachers"][0]["parameters"] |= {"top_logprobs": 2}
        path.write_text(yaml.safe_dump(spec))
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.raised, seen.records, seen.states) == (None, 12, {"settled": 24})
    assert set(mock.bill.requests_by_kind) == {"batch"}
    assert seen.settled_microusd == mock.bill.microusd
    assert seen.wrong == []


async def test_generate_hands_out_what_a_batch_answered_and_then_raises_what_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    got: list[str] = []

    async def read(path: Path, corpus: Corpus) -> None:
        async with generate(path, corpus) as records:
            async for record in records:
                got.append(record.response)  # noqa: PERF401 - what came before the error counts

    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, [*words(4), "bad mark:refused"])
        with Corpus.open(tmp_path / "corpus") as corpus, pytest.raises(RequestRefused):
            await read(path, corpus)
    assert len(got) == 4
    assert not double.live


async def test_answers_that_do_not_fit_their_schema_are_mended_in_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble()) as double:
        path = write_batch_task(tmp_path, double.base_url, words(4))
        spec = yaml.safe_load(path.read_text()) | {"answer_schema": {"type": "object"}}
        path.write_text(yaml.safe_dump(spec))
        seen = await start(tmp_path, path, monkeypatch)
    assert (seen.states, len(double.batches)) == ({"settled": 8}, 2)
    assert not double.live
    assert seen.wrong == []


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_line_that_is_too_long_is_lost_alone(size: int) -> None:
    text = b'{"a":1}\n' + b"x" * 50 + b'\n\n{"b":2}\n{"c":3}'

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(text), size):
            yield text[at : at + size]

    found = [line async for line in lines_of(chunks(), Transport(base_url="https://h.example", clock=utc_now), most=20)]
    assert found == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
