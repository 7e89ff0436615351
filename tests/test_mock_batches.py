"""Both vendors' batches, asked through their official clients on a clock of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types.messages import MessageBatch
from mock_samples import Official, checked, official
from openai.types import Batch

from corpusgen.mock.bill import Prices
from corpusgen.mock.plan import KINDS

pytestmark = pytest.mark.filterwarnings("error")

START = 1_790_000_000.0
DELAY = 100.0
PRICES = Prices(input_per_mtok=2_000_000, output_per_mtok=2_000_000)
"""At half of it, a token is a micro-dollar."""


@dataclass(kw_only=True)
class Clocked:
    """A mock teacher whose time is set by hand, and its clients."""

    at: Official
    time: list[float]
    told: dict[str, bytes] = field(default_factory=dict)

    def pass_(self, share: float) -> None:
        """Let a share of the batch delay go by."""
        self.time[0] += DELAY * share

    @property
    def bill(self) -> dict[str, Any]:
        return self.at.bill


@asynccontextmanager
async def clocked(**fields: Any) -> AsyncIterator[Clocked]:
    """A mock teacher on a clock that stands still."""
    time = [START]
    options = {"now": lambda: time[0], "batch_delay_s": DELAY, "prices": PRICES, **fields}
    async with official(**options) as at:
        yield Clocked(at=at, time=time)


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **fields}


def lines(texts: Sequence[str], url: str = "/v1/chat/completions") -> bytes:
    told = [{"custom_id": f"c{at}", "method": "POST", "url": url, "body": chat(text)} for at, text in enumerate(texts)]
    return b"\n".join(json.dumps(line).encode() for line in told)


async def submit(client: openai.AsyncOpenAI, content: bytes, **fields: Any) -> Batch:
    source = await client.files.create(file=("in.jsonl", content), purpose="batch")
    endpoint: Any = fields.pop("endpoint", "/v1/chat/completions")
    return await client.batches.create(input_file_id=source.id, endpoint=endpoint, completion_window="24h", **fields)


async def told(client: openai.AsyncOpenAI, name: str | None) -> dict[str, Any]:
    """The lines of a file of results, by custom_id."""
    if name is None:
        return {}
    content = (await client.files.content(name)).text
    return {line["custom_id"]: line for line in map(json.loads, content.splitlines())}


async def hand_in(client: anthropic.AsyncAnthropic, texts: Sequence[str]) -> MessageBatch:
    requests: list[Any] = [{"custom_id": f"c{at}", "params": chat(text)} for at, text in enumerate(texts)]
    return await client.messages.batches.create(requests=requests)


async def results(client: anthropic.AsyncAnthropic, name: str) -> dict[str, Any]:
    found = {}
    async for line in await client.messages.batches.results(name):
        found[line.custom_id] = checked(line.result)
    return found


# --- OpenAI ----------------------------------------------------------------------------------------------------------


async def test_a_batch_goes_through_its_states_and_is_answered_in_a_file() -> None:
    async with clocked() as world:
        client = world.at.openai
        batch = await submit(client, lines(["one", "two"]), metadata={"run": "7"})
        states = [batch.status]
        for share in (0.3, 0.3, 0.3, 0.2):
            world.pass_(share)
            batch = await client.batches.retrieve(batch.id)
            checked(batch)
            states.append(batch.status)
        answered = await told(client, batch.output_file_id)
    assert states == ["validating", "in_progress", "in_progress", "finalizing", "completed"]
    assert (batch.metadata, batch.error_file_id, batch.completed_at) == ({"run": "7"}, None, int(START + DELAY))
    assert answered.keys() == {"c0", "c1"}
    assert answered["c0"]["response"]["body"]["choices"][0]["message"]["content"]


async def test_a_batch_says_what_a_live_request_would_at_half_the_price() -> None:
    async with clocked() as world:
        client = world.at.openai
        batch = await submit(client, lines(["one", "two"]))
        world.pass_(1)
        batch = await client.batches.retrieve(batch.id)
        answered = await told(client, batch.output_file_id)
        assert batch.usage is not None
        entry = world.bill["by_kind"]["batch"]
        assert entry == {"requests": 2, "billed_microusd": batch.usage.total_tokens}
        live = await client.chat.completions.create(**chat("one"))
    assert answered["c0"]["response"]["body"] == json.loads(live.to_json(exclude_unset=True))
    of_batch = world.bill["batches"][batch.id]
    assert (of_batch["requests"], of_batch["billed_microusd"]) == (2, batch.usage.total_tokens)
    assert world.bill["charged"][of_batch["keys"]["c0"]] == 2
    assert world.bill["charged"][of_batch["keys"]["c1"]] == 1


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "m", "input": "hi"}),
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
        ("/v1/embeddings", {"model": "m", "input": "hi"}),
    ],
)
async def test_other_endpoints_have_batches_too(endpoint: str, body: Mapping[str, Any]) -> None:
    content = json.dumps({"custom_id": "c", "method": "POST", "url": endpoint, "body": body}).encode()
    async with clocked() as world:
        batch = await submit(world.at.openai, content, endpoint=endpoint)
        world.pass_(1)
        batch = await world.at.openai.batches.retrieve(batch.id)
        answered = await told(world.at.openai, batch.output_file_id)
    assert answered["c"]["response"]["status_code"] == 200
    assert world.bill["billed_microusd"] == answered["c"]["response"]["body"]["usage"]["total_tokens"]


async def test_a_line_that_fails_is_in_the_error_file_and_free() -> None:
    bad = json.dumps({"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": chat("x", n=0)})
    async with clocked() as world:
        client = world.at.openai
        batch = await submit(client, lines(["one", "fault:500", "fault:500-billed"]) + b"\n" + bad.encode())
        world.pass_(1)
        batch = await client.batches.retrieve(batch.id)
        answered, failed = await told(client, batch.output_file_id), await told(client, batch.error_file_id)
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
    assert answered.keys() == {"c0"}
    assert {name: line["response"]["status_code"] for name, line in failed.items()} == {"c1": 500, "c2": 500, "b": 400}
    assert world.bill["batches"][batch.id]["keys"].keys() == {"c0", "c2"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"{not json}", "invalid_json_line"),
        (lines(["one"]) + b"\n" + lines(["two"]), "duplicate_custom_id"),
        (lines(["one"], url="/v1/responses"), "mismatched_endpoint"),
        (b'{"custom_id": "c"}', "missing_required_parameter"),
        (lines(["one"]) + b"\n" + lines(["two"]).replace(b'"m"', b'"n"').replace(b"c0", b"c1"), "mismatched_model"),
    ],
)
async def test_a_file_that_is_wrong_fails_its_validation(content: bytes, code: str) -> None:
    async with clocked() as world:
        batch = await submit(world.at.openai, content)
        world.pass_(1)
        batch = await world.at.openai.batches.retrieve(batch.id)
        checked(batch)
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == code
    assert world.bill["billed_microusd"] == 0


async def test_a_cancelled_batch_keeps_what_was_done_and_charges_for_no_more() -> None:
    async with clocked() as world:
        client = world.at.openai
        batch = await submit(client, lines(["one", "two", "three", "four"]))
        world.pass_(0.5)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        world.pass_(1)
        batch = await client.batches.retrieve(batch.id)
        checked(batch)
        answered, failed = await told(client, batch.output_file_id), await told(client, batch.error_file_id)
        with pytest.raises(openai.ConflictError, match="'cancelled'"):
            await client.batches.cancel(batch.id)
    assert batch.status == "cancelled"
    assert set(answered) == {"c0", "c1"}
    assert {name: line["error"]["code"] for name, line in failed.items()} == dict.fromkeys(
        ("c2", "c3"), "batch_cancelled"
    )
    assert world.bill["batches"][batch.id]["requests"] == 2


async def test_batches_and_files_are_listed_newest_first_page_by_page() -> None:
    async with clocked() as world:
        client = world.at.openai
        made = [(await submit(client, lines([f"bird {at}"]))).id for at in range(3)]
        assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
        files = [found async for found in client.files.list(purpose="batch", limit=2)]
        assert len(files) == 3
        assert len({found._request_id for found in [await client.files.retrieve(one.id) for one in files]}) == 3
        assert (await client.files.delete(files[0].id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(files[0].id)
        assert (await client.files.content(files[1].id)).content == lines(["bird 1"])


# --- Anthropic -------------------------------------------------------------------------------------------------------


async def test_a_message_batch_ends_with_a_result_for_each_request() -> None:
    async with clocked() as world:
        client = world.at.anthropic
        batch = await hand_in(client, ["one", "fault:529", "two"])
        checked(batch)
        world.pass_(0.6)
        before = await client.messages.batches.retrieve(batch.id)
        world.pass_(0.4)
        after = await client.messages.batches.retrieve(batch.id)
        checked(after)
        found = await results(client, batch.id)
        live = await client.messages.create(**chat("one"))
    assert [batch.processing_status, before.processing_status, after.processing_status] == [
        "in_progress",
        "in_progress",
        "ended",
    ]
    assert (before.request_counts.processing, after.request_counts.succeeded, after.request_counts.errored) == (3, 2, 1)
    assert {name: result.type for name, result in found.items()} == {
        "c0": "succeeded",
        "c1": "errored",
        "c2": "succeeded",
    }
    assert found["c0"].message.content == live.content
    assert (found["c0"].message.usage.service_tier, found["c1"].error.error.type) == ("batch", "overloaded_error")
    used = [found[name].message.usage for name in ("c0", "c2")]
    tokens = sum(usage.input_tokens + usage.output_tokens for usage in used)
    assert world.bill["by_kind"]["batch"]["billed_microusd"] == tokens


async def test_a_canceled_message_batch_names_what_was_never_asked() -> None:
    async with clocked() as world:
        client = world.at.anthropic
        batch = await hand_in(client, ["one", "two", "three", "four"])
        world.pass_(0.5)
        canceling = await client.messages.batches.cancel(batch.id)
        with pytest.raises(anthropic.BadRequestError, match="under way"):
            await client.messages.batches.delete(batch.id)
        world.pass_(1)
        found = await results(client, batch.id)
        listed = [one.id async for one in client.messages.batches.list(limit=1)]
        assert (await client.messages.batches.delete(batch.id)).id == batch.id
    assert canceling.processing_status == "canceling"
    assert sorted(result.type for result in found.values()) == ["canceled"] * 2 + ["succeeded"] * 2
    assert listed == [batch.id]


@pytest.mark.parametrize(
    ("names", "complaint"), [([], "1 to"), (["a", "a"], "must stand once"), (["not a name"], "letters")]
)
async def test_a_message_batch_that_is_wrong_is_refused(names: list[str], complaint: str) -> None:
    async with clocked() as world:
        requests: list[Any] = [{"custom_id": name, "params": chat("x")} for name in names]
        with pytest.raises(anthropic.BadRequestError, match=complaint):
            await world.at.anthropic.messages.batches.create(requests=requests)


async def test_a_line_that_asks_wrongly_fails_alone() -> None:
    async with clocked() as world:
        client = world.at.anthropic
        wrong: list[Any] = [
            {"custom_id": "hot", "params": chat("x", temperature=1)},
            {"custom_id": "c", "params": chat("x")},
        ]
        batch = await client.messages.batches.create(requests=wrong)
        world.pass_(1)
        found = await results(client, batch.id)
    assert (found["hot"].error.error.type, found["c"].type) == ("invalid_request_error", "succeeded")


# --- faults of whole batches -----------------------------------------------------------------------------------------


def test_every_fault_of_batches_is_seen_below() -> None:
    assert {name for name, kind in KINDS.items() if kind.place == "batch"} == {
        "batch-lost",
        "batch-invalid",
        "batch-expires",
        "batch-slow",
        "batch-results-cut",
        "batch-results-reset",
        "batch-line-missing",
        "batch-line-twice",
        "batch-line-stray",
        "batch-listed-late",
    }


async def test_a_lost_submission_is_a_batch_all_the_same_and_one_too_many_after_a_retry() -> None:
    async with clocked() as world:
        client = world.at.openai
        with pytest.raises(openai.APIConnectionError):
            await submit(client, lines(["fault:batch-lost"]), metadata={"intent": "1"})
        again = await submit(
            client.with_options(max_retries=1), lines(["x fault:batch-lost*1"]), metadata={"intent": "2"}
        )
        world.pass_(1)
        intents = [(batch.metadata, batch.status) async for batch in client.batches.list()]
    assert intents == [({"intent": "2"}, "completed")] * 2 + [({"intent": "1"}, "completed")]
    key = world.bill["batches"][again.id]["keys"]["c0"]
    assert world.bill["charged"][key] == world.bill["answered"][key] == 2  # the double pay that a client must not cause


async def test_a_lost_message_batch_can_be_found_in_the_list() -> None:
    async with clocked() as world:
        client = world.at.anthropic
        with pytest.raises(anthropic.APIConnectionError):
            await hand_in(client, ["fault:batch-lost"])
        world.pass_(1)
        found = [batch.id async for batch in client.messages.batches.list()]
        assert (await results(client, found[0]))["c0"].type == "succeeded"


async def test_a_batch_may_fail_its_validation_for_no_good_reason() -> None:
    async with clocked() as world:
        batch = await submit(world.at.openai, lines(["fault:batch-invalid*1"]))
        again = await submit(world.at.openai, lines(["fault:batch-invalid*1"]))
        world.pass_(1)
        states = [(await world.at.openai.batches.retrieve(name)).status for name in (batch.id, again.id)]
        with pytest.raises(anthropic.BadRequestError, match="validator"):
            await hand_in(world.at.anthropic, ["fault:batch-invalid"])
    assert states == ["failed", "completed"]


async def test_a_batch_that_expires_keeps_half_of_its_answers() -> None:
    texts = ["fault:batch-expires", "two", "three", "four"]
    async with clocked() as world:
        batch = await submit(world.at.openai, lines(texts))
        messages = await hand_in(world.at.anthropic, texts)
        world.pass_(1)
        batch = await world.at.openai.batches.retrieve(batch.id)
        checked(batch)
        answered = await told(world.at.openai, batch.output_file_id)
        failed = await told(world.at.openai, batch.error_file_id)
        found = await results(world.at.anthropic, messages.id)
    assert (batch.status, batch.expired_at) == ("expired", int(START + DELAY))
    assert (set(answered), set(failed)) == ({"c0", "c1"}, {"c2", "c3"})
    assert failed["c3"]["error"]["code"] == "batch_expired"
    assert sorted(result.type for result in found.values()) == ["expired"] * 2 + ["succeeded"] * 2
    assert world.bill["billed_requests"] == 4


async def test_a_batch_slower_than_its_life_expires() -> None:
    async with clocked(batch_life_s=2 * DELAY) as world:
        slow = await submit(world.at.openai, lines(["fault:batch-slow"]))
        world.pass_(1)
        assert (await world.at.openai.batches.retrieve(slow.id)).status == "validating"
        world.pass_(1)
        assert (await world.at.openai.batches.retrieve(slow.id)).status == "expired"
    assert world.bill["billed_microusd"] == 0


async def test_results_may_be_cut_or_lack_a_line_the_first_time() -> None:
    async with clocked() as world:
        client = world.at.openai
        for fault, whole in (("batch-results-cut", False), ("batch-line-missing", True)):
            batch = await submit(client, lines([f"fault:{fault}*1", "two", "three"]))
            world.pass_(1)
            batch = await client.batches.retrieve(batch.id)
            first = (await client.files.content(str(batch.output_file_id))).text
            second = (await client.files.content(str(batch.output_file_id))).text
            assert second.startswith(first)
            assert first.endswith("\n") == whole
            assert len(second.splitlines()) == 3


async def test_results_may_hold_more_than_was_asked_for() -> None:
    async with clocked() as world:
        twice = await hand_in(world.at.anthropic, ["fault:batch-line-twice*1", "two"])
        stray = await hand_in(world.at.anthropic, ["fault:batch-line-stray*1", "two"])
        world.pass_(1)
        names = [
            [line.custom_id async for line in await world.at.anthropic.messages.batches.results(batch.id)]
            for batch in (twice, stray)
        ]
    assert (len(names[0]), set(names[0])) == (3, {"c0", "c1"})
    assert len([name for name in names[1] if name.startswith("stray-")]) == 1


async def test_a_batch_may_be_in_the_list_late() -> None:
    async with clocked() as world:
        batch = await submit(world.at.openai, lines(["fault:batch-listed-late"]))
        assert [one.id async for one in world.at.openai.batches.list()] == []
        world.pass_(0.5)
        assert [one.id async for one in world.at.openai.batches.list()] == [batch.id]


async def test_results_may_break_off_with_their_connection() -> None:
    async with clocked() as world:
        batch = await hand_in(world.at.anthropic, ["fault:batch-results-reset*1", "two"])
        world.pass_(1)
        with pytest.raises(Exception, match=r"without sending complete|incomplete|closed") as broken:
            await results(world.at.anthropic, batch.id)
        assert len(await results(world.at.anthropic, batch.id)) == 2
    assert "Error" in type(broken.value).__name__


# --- at no delay, and on the clients that wait -----------------------------------------------------------------------


def test_the_clients_that_wait_work_as_well() -> None:
    async def in_a_thread() -> None:
        async with official(batch_delay_s=0) as at:
            await asyncio.to_thread(_wait_for_batches, at.mock.base_url, at.mock.origin)
            assert at.bill["billed_requests"] == 2

    asyncio.run(in_a_thread())


def _wait_for_batches(url: str, origin: str) -> None:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        source = client.files.create(file=("in.jsonl", lines(["one"])), purpose="batch")
        made = client.batches.create(input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h")
        done = client.batches.retrieve(made.id)
        assert client.files.content(str(done.output_file_id)).text.count("\n") == 1
    with anthropic.Anthropic(base_url=origin, api_key="any", max_retries=0) as asking:
        batch = asking.messages.batches.create(requests=[{"custom_id": "c", "params": chat("two")}])  # type: ignore[typeddict-item]
        assert [line.result.type for line in asking.messages.batches.results(batch.id)] == ["succeeded"]
