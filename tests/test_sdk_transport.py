"""``transport: sdk``: what an SDK writes goes out by our own connections, and comes back as it does without."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from flow_samples import write_task
from teacher_samples import TickingClock, answers, server, transport

from corpusgen.errors import (
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    SpecError,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
)
from corpusgen.stages.loading import load_task
from corpusgen.teachers.billing import Billing
from corpusgen.teachers.sdk import Client, Opens, Sdk, anthropic_client, openai_client
from corpusgen.teachers.transport import Secret, Transport

KEY = "sk-very-secret-0123456789"
BODY = b'{"model":"m","max_tokens":1}'
BOTH = pytest.mark.parametrize("opens", [openai_client, anthropic_client])


@asynccontextmanager
async def through(opens: Opens, handler: Any, **fields: Any) -> AsyncIterator[Sdk]:
    async with transport(handler, **fields) as opened:
        sdk = Sdk(transport=opened, opens=opens)
        try:
            yield sdk
        finally:
            await sdk.aclose()


async def failure(opens: Opens, handler: Any, *, timeout_s: float = 5.0, **fields: Any) -> TeacherError:
    async with through(opens, handler, **fields) as sdk:
        with pytest.raises(TeacherError) as caught:
            await sdk.post("/messages", BODY, timeout_s=timeout_s)
    return caught.value


@BOTH
async def test_a_reply_brings_its_bytes_its_name_and_its_limits(opens: Opens) -> None:
    handler = answers(body=b'{"a": 1}', x_request_id="req-1", x_ratelimit_limit_requests="7")
    async with through(opens, handler) as sdk:
        reply = await sdk.post("/messages", BODY, timeout_s=5)
    assert (reply.body, reply.request_id) == (b'{"a": 1}', "req-1")
    assert reply.headers is not None
    assert reply.headers["x-ratelimit-limit-requests"] == "7"
    assert reply.sent_time < reply.received_time


@BOTH
async def test_a_redirect_is_refused_and_nothing_reaches_the_other_place(opens: Opens) -> None:
    reached: list[str] = []

    async def elsewhere(asked: web.Request) -> web.Response:
        reached.append(asked.path)
        return web.Response(body=b"{}")

    async with server(elsewhere) as url:
        error = await failure(opens, answers(307, Location=url))
    assert isinstance(error, RequestRefused)
    assert "mend base_url" in str(error)
    assert not reached


@BOTH
async def test_a_bomb_is_not_unpacked_and_a_cut_is_a_fault_not_something_unsent(opens: Opens) -> None:
    async def cut(asked: web.Request) -> web.Response:
        assert asked.transport is not None
        asked.transport.abort()
        return web.Response()

    bomb = answers(body=gzip.compress(b" " * 100_000), Content_Encoding="gzip")
    assert isinstance(await failure(opens, bomb, max_body=10_000), InvalidAnswer)
    broken = await failure(opens, cut)
    assert (type(broken), broken.billable) == (TeacherFault, True)


@BOTH
async def test_a_failure_says_all_it_says_without_an_sdk(opens: Opens) -> None:
    told = {"retry_after_ms": "250", "request_id": "req-7", "anthropic_ratelimit_requests_limit": "50"}
    handler = answers(429, {"error": {"message": "slow down"}}, **told)
    error = await failure(opens, handler, billing=Billing(known={429: False}))
    assert (type(error), error.retry_after_s, error.request_id) == (RateLimited, 0.25, "req-7")
    assert (error.status, error.billable) == (429, False)
    assert error.headers == {"anthropic-ratelimit-requests-limit": "50"}
    assert "slow down" in str(error)


@BOTH
async def test_nothing_is_asked_twice_whatever_the_server_wishes(opens: Opens) -> None:
    asked_times: list[str] = []

    async def handler(asked: web.Request) -> web.Response:
        asked_times.append(asked.path)
        return web.Response(status=500, headers={"x-should-retry": "true", "retry-after-ms": "1"})

    assert isinstance(await failure(opens, handler), TeacherFault)
    assert len(asked_times) == 1


@BOTH
async def test_silence_is_a_timeout(opens: Opens) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    assert type(await failure(opens, silent, timeout_s=0.2)) is TeacherTimeout


@BOTH
async def test_proxies_headers_and_accounts_of_the_environment_are_ignored(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    async def handler(asked: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in asked.headers.items()})
        return web.Response(body=b"{}", headers={"Set-Cookie": "who=you"})

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "x-tenant: ours\nauthorization: Bearer theirs")
        monkeypatch.setenv(f"{name}_API_KEY", "the-default-key")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    async with through(opens, handler) as sdk:
        await sdk.post("/messages", BODY, timeout_s=5)
        await sdk.post("/messages", BODY, timeout_s=5)
    assert len(seen) == 2
    for sent in seen:
        assert not {"x-tenant", "authorization", "x-api-key", "openai-organization", "cookie"} & sent.keys()


@BOTH
async def test_a_key_that_a_server_echoes_comes_back_as_stars(opens: Opens) -> None:
    async def echo(asked: web.Request) -> web.Response:
        return web.Response(text=asked.headers["Authorization"])

    async with through(opens, echo, secret=Secret(KEY)) as sdk:
        reply = await sdk.post("/messages", BODY, timeout_s=5)
    assert reply.body == b"Bearer ***"
    error = await failure(opens, answers(400, {"error": {"message": f"bad key {KEY}"}}), secret=Secret(KEY))
    assert KEY not in str(error)
    assert error.__context__ is None


@BOTH
async def test_the_key_goes_once_and_into_no_log(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[list[str]] = []

    async def handler(asked: web.Request) -> web.Response:
        seen.append(asked.headers.getall("Authorization"))
        return web.Response(body=b"{}")

    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "authorization: Bearer theirs")
    caplog.set_level("DEBUG")
    async with through(opens, handler, secret=Secret(KEY)) as sdk:
        await sdk.post("/messages", BODY, timeout_s=5)
    assert seen == [[f"Bearer {KEY}"]]
    assert "Sending HTTP Request" in caplog.text
    assert KEY not in caplog.text


@BOTH
async def test_calls_at_once_keep_to_their_own_answers(opens: Opens) -> None:
    async def handler(asked: web.Request) -> web.Response:
        said = await asked.json()
        await asyncio.sleep(0.01 * (said["at"] % 3))
        return web.Response(status=200 if said["at"] % 4 else 503, text=str(said["at"]))

    async def ask(sdk: Sdk, at: int) -> str:
        try:
            return (await sdk.post("/messages", b'{"at":%d}' % at, timeout_s=20)).body.decode()
        except TeacherError as error:
            return str(error).rpartition("'")[0].rpartition("'")[2]

    async with through(opens, handler) as sdk:
        got = await asyncio.gather(*(ask(sdk, at) for at in range(40)))
    assert [text if number % 4 else text[-len(str(number)) :] for number, text in enumerate(got)] == [
        str(number) for number in range(40)
    ]


class Stumbles:
    """An SDK that breaks over an answer it was handed."""

    def __init__(self, carried: Any) -> None:
        self.carried = carried

    async def post(self, path: str, **_: Any) -> None:
        await self.carried.post(f"http://127.0.0.1{path}", content=b"{}")
        raise RuntimeError("what is this?")

    async def close(self) -> None: ...


async def test_an_answer_that_came_is_kept_whatever_the_sdk_makes_of_it() -> None:
    def opens(_: Transport, carried: Any) -> Client:
        return Client(sdk=Stumbles(carried), headers={}, failures=(RuntimeError,))

    async with through(opens, answers(body=b"paid for")) as sdk:
        assert (await sdk.post("/messages", BODY, timeout_s=5)).body == b"paid for"


class SlowToSign:
    """An SDK that never gets as far as sending."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def post(self, path: str, **_: Any) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(30)

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "kind"),
    [(None, NotSent), (ConnectionError("down"), NotSent), (RuntimeError("who are you?"), RequestRefused)],
)
async def test_who_cannot_sign_in_has_sent_nothing_and_owes_nothing(error: Exception | None, kind: type) -> None:
    def opens(_: Transport, __: Any) -> Client:
        return Client(sdk=SlowToSign(error), headers={}, failures=(RuntimeError, OSError), hint="sign in first")

    reached = Transport(base_url="http://127.0.0.1:9", clock=TickingClock())
    sdk = Sdk(transport=reached, opens=opens)
    with pytest.raises(TeacherError) as caught:
        await sdk.post("/messages", BODY, timeout_s=0.1)
    assert (type(caught.value), caught.value.billable) == (kind, False)
    assert ("sign in first" in str(caught.value)) == (kind is RequestRefused)
    await sdk.aclose()


def test_what_has_no_server_has_no_sdk(tmp_path: Path) -> None:
    path = write_task(tmp_path, items=2, teacher={"name": "scripted/m", "transport": "sdk"})
    with pytest.raises(SpecError, match="transport: scripted/m is asked without a network"):
        load_task(path)


def test_the_same_run_goes_on_by_either_transport(tmp_path: Path) -> None:
    served = {"name": "vllm/m", "script": None}
    plain = load_task(write_task(tmp_path / "http", items=2, teacher=served))
    by_sdk = load_task(write_task(tmp_path / "sdk", items=2, teacher={**served, "transport": "sdk"}))
    assert (plain.teacher.transport, by_sdk.teacher.transport) == ("http", "sdk")
    assert plain.identity == by_sdk.identity
