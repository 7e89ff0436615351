"""What the fan-out promises its reader and the budget."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from flow_samples import FREE, asker_of, cap, open_corpus, prompt, prompts, saying, states, violations
from teacher_samples import chat_reply

from corpusgen.budget.ledger import balances
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.errors import (
    BudgetExhausted,
    Interrupted,
    InvalidAnswer,
    RateLimited,
    RequestRefused,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UsageOverrun,
)
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Record, Request
from corpusgen.stages.reconciling import accept
from corpusgen.teachers.scripted import Rule, Scripted, ScriptedAnswer, ScriptedUsage


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with open_corpus(tmp_path) as opened:
        yield opened


async def read(asker: Asker, wanted: Iterator[Prompt], see: Callable[[Record], object] = id) -> list[Record]:
    """All records; ``see`` is shown each as it comes."""
    found = []
    async with answers(asker, wanted) as records:
        async for record in records:
            see(record)
            found.append(record)
    return found


def asked(asker: Asker) -> int:
    assert isinstance(asker.teacher, Scripted)
    return len(asker.teacher.asked)


def booked(corpus: Corpus) -> Counter[str]:
    """States of the calls, without those that were promised and given back unsent."""
    found = states(corpus.journal)
    del found["released"]
    return found


def failing_at(text: str, error: TeacherError) -> Rule:
    """A rule that fails for one prompt."""
    return lambda request: error if request.messages[-1].content == text else ScriptedAnswer(text="hello")


def failing_first(times: int, error: TeacherError) -> Rule:
    """A rule that fails so many times before it answers."""
    left = iter([error] * times)
    return lambda _: next(left, None) or ScriptedAnswer(text="hello")


# --- the reader ------------------------------------------------------------------------------------------------------


async def test_every_prompt_becomes_a_record(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying())
    records = await read(asker, prompts(50))
    assert sorted(record.input for record in records) == [f"prompt {at:05}" for at in range(50)]
    assert states(corpus.journal) == {"settled": 50}
    assert not violations(corpus.journal)


@pytest.mark.parametrize("in_flight", [1, 4, 16])
async def test_leaving_after_five_records_stops_the_asking(corpus: Corpus, in_flight: int) -> None:
    asker = asker_of(corpus, saying(), in_flight=in_flight)
    async with answers(asker, prompts(1000)) as records:
        for _ in range(5):
            await anext(records)
    # One answer may be in the hands of each worker, and as many wait in the queue.
    assert asked(asker) <= 5 + 2 * in_flight
    assert booked(corpus) == {"settled": asked(asker)}


async def test_nothing_is_asked_after_the_block_was_left(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying())
    async with answers(asker, prompts(1000)) as records:
        await anext(records)
    before = asked(asker)
    await asyncio.sleep(0.05)
    assert asked(asker) == before


async def test_a_slow_reader_slows_the_teacher(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(), in_flight=3)
    ahead = []
    async with answers(asker, prompts(60)) as records:
        taken = 0
        async for _ in records:
            taken += 1
            await asyncio.sleep(0.01)
            ahead.append(asked(asker) - taken)
    assert taken == 60
    assert max(ahead) <= 2 * 3


async def test_known_answers_wait_for_a_slow_reader_too(corpus: Corpus) -> None:
    await read(asker_of(corpus, saying()), prompts(300))
    again = asker_of(corpus, saying(), in_flight=3)
    async with answers(again, prompts(300)) as records:
        await anext(records)
        await asyncio.sleep(0.05)
        assert again.counts.known <= 1 + 3 + 1  # read, in the queue, in the hands of the one who looks up
    assert asked(again) == 0


async def test_leaving_does_not_wait_for_a_pause_or_a_free_budget(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(latency_s=0.01), in_flight=2)
    async with answers(asker, prompts(100)) as records:
        await anext(records)
        asker.pacer.pause(100)
    assert asked(asker) <= 1 + 2 * 2
    assert booked(corpus) == {"settled": asked(asker)}


async def test_an_exception_of_the_reader_passes_as_itself(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying())
    with pytest.raises(ZeroDivisionError):
        await read(asker, prompts(100), see=lambda _: 1 / 0)
    assert booked(corpus) == {"settled": asked(asker)}


async def test_an_exception_of_the_prompts_arrives_as_itself(corpus: Corpus) -> None:
    def broken() -> Iterator[Prompt]:
        yield from prompts(3)
        raise LookupError("the seed file ended early")

    with pytest.raises(LookupError, match="ended early"):
        await read(asker_of(corpus, saying()), broken())


async def test_an_empty_stream_ends_at_once(corpus: Corpus) -> None:
    assert await read(asker_of(corpus, saying()), iter(())) == []


# --- failing calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RequestRefused, TeacherTimeout, TeacherFault, InvalidAnswer])
async def test_a_failing_call_arrives_as_itself_and_its_neighbours_are_kept(
    corpus: Corpus, kind: type[TeacherError]
) -> None:
    asker = asker_of(corpus, failing_at("prompt 00002", kind("no")), in_flight=4)
    seen: list[Record] = []
    with pytest.raises(kind, match="no"):
        await read(asker, prompts(100), see=seen.append)
    kept = corpus.journal.query("select item_id from records")
    assert len(kept) >= 3
    assert {row[0] for row in kept} == {record.input for record in seen}
    assert states(corpus.journal)["promised"] == 0


async def test_what_fails_for_good_is_dropped_with_its_reason_when_asked_to(corpus: Corpus) -> None:
    rule = failing_at("prompt 00002", RequestRefused("too long", status=400))
    records = await read(asker_of(corpus, rule, on_failure="drop"), prompts(10))
    assert len(records) == 9
    drops = corpus.journal.query("select item_id, reason, detail from drops")
    assert drops == [("prompt 00002", "RequestRefused", "too long")]


async def test_many_refused_prompts_at_the_head_of_a_file_do_not_stop_the_others(corpus: Corpus) -> None:
    rule = failing_first(10, RequestRefused("too long", status=400))
    assert len(await read(asker_of(corpus, rule, on_failure="drop"), prompts(20))) == 10


async def test_a_teacher_that_refuses_everything_is_not_asked_about_a_whole_file(corpus: Corpus) -> None:
    rule = failing_first(1000, RequestRefused("no such thing", status=400))
    asker = asker_of(corpus, rule, on_failure="drop", in_flight=2)
    with pytest.raises(RequestRefused, match="failed 100 times in a row"):
        await read(asker, prompts(400))
    assert asker.counts.sent <= 102


async def test_who_fails_again_and_again_is_named_with_what_to_do(corpus: Corpus) -> None:
    asker = asker_of(corpus, failing_first(8, TeacherTimeout("late")), on_failure="drop", attempts=1, in_flight=1)
    with pytest.raises(TeacherTimeout, match=r"failed 8 times in a row.*late.*base_url"):
        await read(asker, prompts(20))


async def test_an_answer_takes_back_an_earlier_drop(corpus: Corpus) -> None:
    rule = failing_at("prompt 00002", RequestRefused("too long", status=400))
    await read(asker_of(corpus, rule, on_failure="drop"), prompts(5))
    assert len(await read(asker_of(corpus, saying()), prompts(5))) == 5
    assert corpus.journal.query("select * from drops") == []


async def test_a_refusal_no_prompt_would_escape_ends_the_run(corpus: Corpus) -> None:
    rule = failing_at("prompt 00000", RequestRefused("wrong key", status=401))
    asker = asker_of(corpus, rule, on_failure="drop", in_flight=2)
    with pytest.raises(RequestRefused, match="wrong key"):
        await read(asker, prompts(1000))
    assert asked(asker) < 10


async def test_one_flagged_prompt_in_a_hundred_gives_99_records_and_one_listed_reason(corpus: Corpus) -> None:
    rule = failing_at("prompt 00042", RequestRefused("your input was flagged", status=403))
    assert len(await read(asker_of(corpus, rule, on_failure="drop", in_flight=1), prompts(100))) == 99
    drops = corpus.journal.query("select item_id, reason, detail from drops")
    assert drops == [("prompt 00042", "RequestRefused", "your input was flagged")]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_teacher_that_refuses_before_it_ever_answered_ends_the_run(corpus: Corpus, status: int) -> None:
    asker = asker_of(corpus, lambda _: RequestRefused("no", status=status), on_failure="drop", in_flight=1)
    with pytest.raises(RequestRefused):
        await read(asker, prompts(100))
    assert asked(asker) == 1


async def test_a_run_taken_up_passes_a_flagged_prompt_and_a_lost_permission_ends_it(corpus: Corpus) -> None:
    await read(asker_of(corpus, saying()), prompts(2))
    flagged = failing_at("prompt 00002", RequestRefused("flagged", status=403))
    assert len(await read(asker_of(corpus, flagged, on_failure="drop", in_flight=1), prompts(4))) == 3
    asker = asker_of(corpus, lambda _: RequestRefused("gone", status=404), on_failure="drop", in_flight=1)
    with pytest.raises(RequestRefused, match="gone"):
        await read(asker, prompts(100))
    assert asked(asker) == 8


async def test_a_bug_in_a_teacher_arrives_as_itself_and_is_booked_as_unknown(corpus: Corpus) -> None:
    def rule(_: Request) -> ScriptedAnswer:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        await read(asker_of(corpus, rule, in_flight=1), prompts(10))
    assert states(corpus.journal) == {"unknown": 1}
    assert not violations(corpus.journal)


async def test_an_invalid_answer_does_not_discard_its_neighbours(corpus: Corpus) -> None:
    def rule(request: Request) -> ScriptedAnswer:
        bad = request.messages[-1].content == "prompt 00003"
        return ScriptedAnswer(body="<html>") if bad else ScriptedAnswer(text="hello")

    records = await read(asker_of(corpus, rule, on_failure="drop", attempts=2), prompts(8))
    assert len(records) == 7
    assert states(corpus.journal) == {"settled": 7, "unknown": 2}


async def test_every_retry_is_a_reservation_of_its_own(corpus: Corpus) -> None:
    asker = asker_of(corpus, failing_first(3, TeacherFault("busy")), in_flight=1)
    assert len(await read(asker, prompts(1))) == 1
    rows = corpus.journal.query("select attempt, state from calls order by call_id")
    assert rows == [(1, "unknown"), (2, "unknown"), (3, "unknown"), (4, "settled")]
    assert not violations(corpus.journal)


async def test_retries_stop_at_the_cap(corpus: Corpus) -> None:
    asker = asker_of(corpus, failing_first(9, TeacherFault("busy")), in_flight=1)
    await asker.ledger.set_caps([cap(2)])
    with pytest.raises(BudgetExhausted):
        await read(asker, prompts(1))
    assert states(corpus.journal) == {"unknown": 2}


async def test_a_refusal_costs_nothing_but_counts_as_a_request(corpus: Corpus) -> None:
    asker = asker_of(corpus, failing_first(1, RequestRefused("no")), in_flight=1)
    with pytest.raises(RequestRefused):
        await read(asker, prompts(1))
    used = {balance.unit: balance for balance in balances(corpus.journal, ["corpus"])}
    assert (used["tokens"].settled, used["tokens"].unconfirmed, used["requests"].settled) == (0, 0, 1)
    assert not violations(corpus.journal)


async def test_a_pause_holds_everybody_back_and_loses_no_prompt(corpus: Corpus) -> None:
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    limited = iter([RateLimited("slow down", retry_after_s=0.3, status=429)])

    def rule(_: Request) -> ScriptedAnswer | TeacherError:
        sent.append(loop.time())
        return next(limited, None) or ScriptedAnswer(text="hello", latency_s=0.01)

    records = await read(asker_of(corpus, rule, in_flight=8), prompts(40))
    assert len(records) == 40
    # Those who were past the gate when the answer came may still send; everybody else waits for the pause to end.
    during = [moment for moment in sent if sent[0] + 0.15 < moment < sent[0] + 0.3]
    assert during == []


async def test_usage_above_the_bound_is_booked_in_full_and_stops_the_teacher(corpus: Corpus) -> None:
    absurd = ScriptedUsage(input_tokens=5000, output_tokens=5)
    asker = asker_of(corpus, saying(usage=absurd), on_failure="drop", in_flight=2)
    with pytest.raises(UsageOverrun, match="5005 tokens"):
        await read(asker, prompts(100))
    overrun = states(corpus.journal)["overrun"]
    assert 1 <= overrun <= 2
    assert corpus.journal.query("select count(*) from answers") == [(overrun,)]
    (tokens,) = (balance for balance in balances(corpus.journal, ["corpus"]) if balance.unit == "tokens")
    assert tokens.settled == 5005 * overrun


async def test_usage_above_the_bound_stops_the_teacher_in_every_process_until_a_person_allows_it(
    corpus: Corpus,
) -> None:
    absurd = ScriptedUsage(input_tokens=5000, output_tokens=5)
    with pytest.raises(UsageOverrun):
        await read(asker_of(corpus, saying(usage=absurd), in_flight=1), prompts(1))
    later = asker_of(corpus, saying())
    with pytest.raises(UsageOverrun, match=r"corpusgen reconcile --accept 1 --by NAME"):
        await read(later, prompts(5))
    assert asked(later) == 0
    done = accept(corpus, [1], by="ann", reason="their counter was broken")
    assert done.notes == ("call 1 stays booked as it is, and scripted/test may be asked again",)
    assert len(await read(asker_of(corpus, saying()), prompts(5))) == 5
    assert corpus.journal.query("select before, by from reconciliations") == [("overrun", "ann")]
    assert not violations(corpus.journal)


# --- identical prompts -----------------------------------------------------------------------------------------------


def repeated(count: int, distinct: int) -> Iterator[Prompt]:
    return (prompt(f"prompt {at % distinct:05}", at) for at in range(count))


async def test_identical_prompts_are_sent_once(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(latency_s=0.005), in_flight=64)
    records = await read(asker, repeated(200, 50))
    assert (len(records), asked(asker)) == (200, 50)


async def test_two_streams_of_one_corpus_ask_the_same_thing_once(corpus: Corpus) -> None:
    both = [asker_of(corpus, saying(latency_s=0.005), in_flight=32) for _ in range(2)]
    first, second = await asyncio.gather(*(read(asker, repeated(200, 50)) for asker in both))
    assert (len(first), len(second)) == (200, 200)
    assert sum(map(asked, both)) == 50


async def test_what_another_process_bought_in_the_meantime_is_not_bought_again(corpus: Corpus) -> None:
    with open_corpus(corpus.folder) as another:  # shares nothing with the first but the file
        late = asker_of(another, saying(), in_flight=2)
        async with answers(late, prompts(100)) as records:
            await anext(records)
            await read(asker_of(corpus, saying()), prompts(100))
            rest = [record async for record in records]
    assert len(rest) == 99
    assert asked(late) <= 1 + 2 * 2


async def test_whoever_waits_for_a_call_that_fails_asks_itself(corpus: Corpus) -> None:
    rule = failing_first(1, RequestRefused("not now"))
    asker = asker_of(corpus, rule, in_flight=2, on_failure="drop")
    assert len(await read(asker, repeated(2, 1))) == 1
    assert asked(asker) == 2


async def test_what_is_known_and_what_is_not_come_in_the_order_of_the_prompts(corpus: Corpus) -> None:
    # Looked up 256 at a time: here all of the first are known, a few of the second, none of the third.
    await read(asker_of(corpus, saying()), prompts(266))
    again = asker_of(corpus, saying(), in_flight=1)
    records = await read(again, prompts(600))
    assert [record.input for record in records] == [f"prompt {at:05}" for at in range(600)]
    assert (again.counts.known, asked(again), again.counts.done) == (266, 334, 600)


async def test_answers_that_are_known_are_not_asked_again(corpus: Corpus) -> None:
    first = await read(asker_of(corpus, saying()), prompts(30))
    again = asker_of(corpus, saying())
    second = await read(again, prompts(30))
    assert asked(again) == 0
    assert second == sorted(first, key=lambda record: record.input)  # known ones come in the order of the prompts


# --- the budget ------------------------------------------------------------------------------------------------------


async def test_a_cap_ends_the_run_and_keeps_what_was_paid_for(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(), in_flight=8)
    await asker.ledger.set_caps([cap(10)])
    seen: list[Record] = []
    with pytest.raises(BudgetExhausted, match="10 requests"):
        await read(asker, prompts(100), see=seen.append)
    assert len(seen) == asked(asker) == 10
    assert not violations(corpus.journal)


@pytest.mark.parametrize("unit", ["microusd", "tokens", "requests"])
@pytest.mark.parametrize("rate", [FREE, Rate(input_per_mtok=1_000_000, output_per_mtok=1_000_000, version="v")])
async def test_a_cap_of_0_sends_nothing(corpus: Corpus, unit: str, rate: Rate) -> None:
    asker = asker_of(corpus, saying(), rate=rate)
    await asker.ledger.set_caps([cap(0, unit)])  # type: ignore[arg-type] # one of three units
    with pytest.raises(BudgetExhausted):
        await read(asker, prompts(3))
    assert asked(asker) == 0
    assert not states(corpus.journal)


async def test_a_cap_is_used_to_the_last_call_that_fits(corpus: Corpus) -> None:
    # Each call may use 50 tokens and uses 4: promises that settle lower let waiting calls in.
    asker = asker_of(corpus, saying(usage=ScriptedUsage(input_tokens=3, output_tokens=1)), in_flight=16)
    await asker.ledger.set_caps([cap(1000, "tokens")])
    with pytest.raises(BudgetExhausted):
        await read(asker, prompts(1000))
    assert asked(asker) * 4 > 1000 - 60
    assert not violations(corpus.journal)


# --- stopping --------------------------------------------------------------------------------------------------------


async def test_cancellation_books_calls_under_way_as_unknown_and_leaks_no_promise(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(latency_s=60.0), in_flight=5)
    task = asyncio.create_task(read(asker, prompts(100)))
    while asker.counts.in_flight < 5:  # noqa: ASYNC110 - nothing tells when a call has left
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert states(corpus.journal) == {"unknown": 5}
    assert not violations(corpus.journal)


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_cancellation_at_any_moment_leaks_no_promise(corpus: Corpus, turns: int) -> None:
    asker = asker_of(corpus, saying(latency_s=0.001), in_flight=8)
    await asker.ledger.set_caps([cap(6)])
    task = asyncio.create_task(read(asker, prompts(100)))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert states(corpus.journal)["promised"] == 0
    assert states(corpus.journal)["settled"] == corpus.journal.query("select count(*) from answers")[0][0]
    assert not violations(corpus.journal)


async def test_stopping_waits_for_calls_under_way_and_sends_no_more(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(latency_s=0.05), in_flight=3)
    seen: list[Record] = []

    def stop(record: Record) -> None:
        seen.append(record)
        asker.stopping.set()

    with pytest.raises(Interrupted):
        await read(asker, prompts(100), see=stop)
    assert len(seen) == asked(asker) <= 2 * 3
    assert booked(corpus) == {"settled": len(seen)}


# --- labels ----------------------------------------------------------------------------------------------------------

LABELS = ("animal", "plant", "place")


async def test_a_label_outside_the_top_k_is_asked_for_again_with_a_larger_k(corpus: Corpus) -> None:
    rule = saying(label_logprobs={"animal": -0.1, "plant": -3.0, "place": -4.0})
    asker = asker_of(corpus, rule, labels=LABELS)
    (record,) = await read(asker, prompts(1, top_logprobs=2))
    assert record.label_logprobs == (-0.1, -3.0, -4.0)
    assert [request.parameters["top_logprobs"] for request in _requests(asker)] == [2, 20]
    assert len(record.request_keys) == 2


@pytest.mark.parametrize("several", [False, True])
async def test_an_answer_that_lacks_a_label_is_a_record_where_its_teacher_is_asked_no_more(
    corpus: Corpus, several: bool
) -> None:
    def rule(_: Request) -> ScriptedAnswer:
        asker.standing.out = UsageOverrun("what a neighbour met meanwhile")
        return ScriptedAnswer(text="hello", label_logprobs={"animal": -0.1, "plant": -3.0})

    asker = asker_of(corpus, rule, labels=LABELS, at_once=asyncio.Semaphore(4))
    whole = replace(asker, panel=(asker,)) if several else asker
    (record,) = await read(whole, prompts(1, top_logprobs=2))
    assert (record.label_logprobs, asked(asker)) == ((-0.1, -3.0, None), 1)
    assert corpus.journal.query("select count(*) from records") == [(1,)]


async def test_a_label_that_stays_outside_is_none_and_never_a_constant(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(label_logprobs={"animal": -0.1, "plant": -3.0}), labels=LABELS)
    (record,) = await read(asker, prompts(1, top_logprobs=2))
    assert record.label_logprobs == (-0.1, -3.0, None)
    assert asked(asker) == 2


async def test_a_teacher_without_log_probabilities_is_not_asked_for_more_of_them(corpus: Corpus) -> None:
    body = orjson.dumps(chat_reply({"content": "animal"})).decode()
    asker = asker_of(corpus, saying(body=body), labels=LABELS)
    (record,) = await read(asker, prompts(1, top_logprobs=2))
    assert (record.label, asked(asker)) == ("animal", 1)


async def test_the_record_of_an_item_asked_twice_is_the_same_when_it_is_read_again(corpus: Corpus) -> None:
    rate = Rate(input_per_mtok=1_000_000, output_per_mtok=1_000_000, version="v")
    rule = saying(label_logprobs={"animal": -0.1, "plant": -3.0, "place": -4.0})
    first = await read(asker_of(corpus, rule, labels=LABELS, rate=rate), prompts(5, top_logprobs=2))
    again = asker_of(corpus, rule, labels=LABELS, rate=rate)
    second = await read(again, prompts(5, top_logprobs=2))
    assert (second, asked(again)) == (sorted(first, key=lambda record: record.input), 0)
    spent = corpus.journal.query("select settled from balances where scope = 'corpus' and unit = 'microusd'")[0][0]
    assert sum(record.cost_microusd for record in first) == spent


def _requests(asker: Asker) -> list[Request]:
    assert isinstance(asker.teacher, Scripted)
    return asker.teacher.asked
