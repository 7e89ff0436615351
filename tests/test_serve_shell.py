from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import shlex
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from aiohttp import web
from command import corpusgen
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pydantic import BaseModel
from serve_samples import CHAT, Served, served

from corpusgen.cli.main import corpusgen as commands
from corpusgen.errors import BudgetExhausted, CorpusDamaged, UnknownTeacher, UsageError
from corpusgen.serve.app import Guests, bound, hosts_of, is_here
from corpusgen.serve.bus import Bus
from corpusgen.serve.logs import Log, catch_logging, masked_secrets
from corpusgen.serve.meter import FAMILIES, MOST_SERIES, Meter
from corpusgen.serve.reading import body_of, form_of, object_in, query_of
from corpusgen.serve.routes import CALLER, Operation
from corpusgen.serve.sessions import MOST_OF_ONE, SESSIONS
from corpusgen.serve.spans import Spans
from corpusgen.serve.statuses import Hidden, Refused, as_refused
from corpusgen.serve.tokens import revoke

OPERATING = (Path(__file__).parents[1] / "docs" / "operating.md").read_text("utf-8")
SECRET = "cg_" + "B" * 43


class Pebble(BaseModel):
    size: int
    name: str = ""


def _operation(handler: Any, **fields: Any) -> Operation:
    usual: dict[str, Any] = {"method": "GET", "path": "/api/v1/pebbles", "scope": "read", "summary": "Pebbles"}
    return Operation(handler=handler, **usual | fields)


def _post(handler: Any, **fields: Any) -> Operation:
    return _operation(handler, method="POST", **fields)


# --- health and numbers


async def test_health_is_told_to_anybody_and_without_details(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        s.token("read")
        assert (await s.get("/healthz")).json == {"status": "alive"}
        assert (await s.get("/readyz")).json == {"status": "ready"}
        assert (await s.send("HEAD", "/healthz")).status == 200
        s.service.stopping.set()
        stopping = await s.get("/readyz")
        assert (stopping.status, stopping.json) == (503, {"status": "stopping"})
        assert (await s.get("/healthz")).status == 200


async def test_what_is_counted_is_what_prometheus_reads(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        await s.post("/v1/chat/completions", CHAT)
        await s.get("/nowhere")
        found = _parsed((await s.get("/metrics")).text)
    assert found["corpusgen_requests_total", ("route=/v1/chat/completions", "method=POST", "status=200")] == 1
    assert found["corpusgen_requests_total", ("route=other", "method=GET", "status=404")] == 1
    assert found["corpusgen_records", ()] == 1
    assert found["corpusgen_cap_microusd", ("scope=service", "per=total")] == 5_000_000
    assert found["corpusgen_money_microusd", ("scope=service", "state=settled")] == s.bill["billed_microusd"]
    assert found["corpusgen_request_seconds_count", ("route=/v1/chat/completions",)] == 1


_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (-?[0-9.e+-]+|\+Inf)')
_LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\[\\"n])*)"')


def _parsed(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample; fails for a line that Prometheus' text format does not know, and for buckets that shrink."""
    assert text.endswith("\n")
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            assert word in ("HELP", "TYPE")
            assert word == "HELP" or kinds.setdefault(name, rest) == rest
            continue
        match = _SAMPLE.fullmatch(line)
        assert match is not None, line
        base = re.sub(r"_(bucket|sum|count)$", "", match[1]) if match[1] not in kinds else match[1]
        assert kinds[base] in ("counter", "gauge", "histogram")
        key = (match[1], tuple(f"{name}={value}" for name, value in _LABEL.findall(match[2] or "")))
        assert key not in found
        found[key] = float(match[3])
    return found


@given(st.lists(st.tuples(st.text(max_size=8), st.floats(0, 1e4)), max_size=30))
def test_any_label_and_any_time_can_be_written_down(samples: list[tuple[str, float]]) -> None:
    meter = Meter()
    for label, seconds in samples:
        meter.observe("corpusgen_request_seconds", seconds, label)
        meter.add("corpusgen_refused_total", 1, label)
    text = meter.render().replace("\r", " ")
    lines = [line for line in text.split("\n") if line.startswith("corpusgen_refused_total")]
    assert len(lines) == len({label for label, _ in samples})


def test_buckets_add_up_and_time_is_not_lost() -> None:
    meter = Meter()
    for seconds in (0.0005, 0.002, 0.002, 700):
        meter.observe("corpusgen_upstream_seconds", seconds, "openai/m")
    found = _parsed(meter.render())
    buckets = [value for (name, _), value in found.items() if name == "corpusgen_upstream_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (1, 4)
    assert found["corpusgen_upstream_seconds_sum", ("teacher=openai/m",)] == pytest.approx(700.0045)


def test_callers_cannot_make_the_numbers_grow_for_ever() -> None:
    meter = Meter()
    for at in range(MOST_SERIES + 100):
        meter.add("corpusgen_refused_total", 1, f"reason {at}")
    assert meter.render().count("corpusgen_refused_total{") == MOST_SERIES + 1
    assert meter.value("corpusgen_refused_total", "other") == 100
    assert all(family.help.endswith(".") for family in FAMILIES.values())


# --- what comes in and goes out


async def test_every_answer_has_its_headers_and_a_name(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        for got in (await s.get("/healthz"), await s.get("/nowhere"), await s.get("/metrics")):
            assert got.header("X-Content-Type-Options") == "nosniff"
            assert got.header("Cache-Control") == "no-store"
            assert got.header("Referrer-Policy") == "same-origin"
            assert (got.header("x-request-id") or "").startswith("req_")
            assert got.header("Server") == "corpusgen"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "told"),
    [
        ("GET", "/v1/nowhere", {}, 404, {"type": "invalid_request_error", "code": "not_found"}),
        ("GET", "/v1/messages/nowhere", {}, 404, {"type": "not_found_error"}),
        ("GET", "/v1/chat/completions", {}, 405, {"type": "invalid_request_error", "code": "method_not_allowed"}),
        ("DELETE", "/v1/messages", {}, 405, {"type": "invalid_request_error"}),
        ("GET", "/v1/models", {"x-api-key": "cg_nobody"}, 401, {"type": "authentication_error"}),
        (
            "GET",
            "/v1/models",
            {"x-api-key": "cg_nobody", "anthropic-version": "1"},
            401,
            {"type": "authentication_error"},
        ),
        ("GET", "/api/v1/nowhere", {}, 404, {"type": "NotFound"}),
        ("GET", "/nowhere", {}, 404, {"type": "NotFound"}),
    ],
)
async def test_errors_are_told_in_the_words_of_who_asks(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], status: int, told: dict[str, str]
) -> None:
    async with served(tmp_path) as s:
        got = await s.send(method, path, headers=headers)
    assert got.status == status
    assert told.items() <= got.json["error"].items()
    anthropic = path.startswith("/v1/messages") or "anthropic-version" in headers
    assert (got.json.get("type") == "error") == anthropic
    assert (got.header("Allow") is not None) == (status == 405)


async def test_what_nobody_expected_is_told_by_a_name_and_logged_without_secrets(tmp_path: Path) -> None:
    async def breaks(request: web.Request) -> web.Response:
        raise ZeroDivisionError(f"with {SECRET} and sk-ant-api03-abcdefghijklmnopqrstuvwxyz")

    async with served(tmp_path, operations=[_operation(breaks)]) as s:
        got = await s.get("/api/v1/pebbles")
        name = got.header("x-request-id") or "?"
        assert got.status == 500
        assert name in got.text
        assert "Zero" not in got.text
        log = s.log.getvalue()
    assert f"event=unexpected request_id={name}" in log
    assert "ZeroDivisionError" in log
    assert SECRET not in log
    assert "sk-ant" not in log


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExhausted("no more"), 402),
        (UnknownTeacher("who?"), 404),
        (CorpusDamaged("x"), 500),
        (Refused(409, "no"), 409),
    ],
)
async def test_our_own_errors_have_a_status_each(tmp_path: Path, error: Exception, status: int) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise error

    async with served(tmp_path, operations=[_operation(fails)]) as s:
        got = await s.get("/api/v1/pebbles")
    assert got.status == status
    assert got.json["error"]["message"] == str(error)


def test_the_folder_of_the_corpus_is_not_told() -> None:
    hidden = Hidden(folders=("/home/ann/corpus", "/home/ann"))
    told = as_refused(CorpusDamaged("/home/ann/corpus/journal.sqlite: is gone"), hidden=hidden)
    assert str(told) == "journal.sqlite: is gone"
    mistake = as_refused(Refused(400, "no", problems=[{"field": "a", "message": "/home/ann/x is none"}]), hidden=hidden)
    assert mistake.problems == ({"field": "a", "message": "x is none"},)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("HTTP 500 from http://10.1.2.3:8000/v1: no", "HTTP 500 from the teacher 'gpt': no"),
        ("see http://10.9.9.9/x and https://docs.example.org/y.", "see [address] and https://docs.example.org/y."),
        (
            "http://vllm:8000/v1 http://a.svc http://[::1]/ http://2130706433/ http://0x7f.1/",
            " ".join(["[address]"] * 5),
        ),
        ("http://user@169.254.169.254/latest http://[fe80::1 ok", "[address] [address] ok"),
    ],
)
def test_addresses_that_mean_nothing_elsewhere_are_not_told(said: str, told: str) -> None:
    hidden = Hidden(names={"http://10.1.2.3:8000/v1": "the teacher 'gpt'"}, addresses=True)
    assert hidden.out_of(said) == told
    assert Hidden().out_of(said) == said


async def test_an_answer_that_breaks_in_the_middle_has_no_end(tmp_path: Path) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        raise ValueError("in the middle")

    async with served(tmp_path, operations=[_operation(breaks)]) as s:
        with pytest.raises(Exception, match=r"payload|disconnected|closed|Connection"):
            await s.get("/api/v1/pebbles")
        assert (await s.get("/healthz")).status == 200


async def test_a_body_is_read_as_what_the_operation_takes(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        body = await body_of(request, Pebble)
        return web.json_response({"size": body.size, "user": request[CALLER].user})

    async with served(tmp_path, operations=[_post(echo, body=Pebble)]) as s:
        assert (await s.post("/api/v1/pebbles", {"size": 3})).json == {"size": 3, "user": "local"}
        wrong = await s.post("/api/v1/pebbles", {"size": "many", "name": 5})
        assert wrong.status == 400
        assert {one["field"] for one in wrong.json["error"]["problems"]} == {"size", "name"}
        assert "many" not in wrong.text


async def test_query_parameters_are_those_of_the_operation(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(query_of(request, Pebble).model_dump())

    async with served(tmp_path, operations=[_operation(echo, query=Pebble)]) as s:
        assert (await s.get("/api/v1/pebbles?size=3&name=a%26b")).json == {"size": 3, "name": "a&b"}
        assert (await s.get("/api/v1/pebbles?size=3&colour=red")).status == 400
        assert (await s.get("/api/v1/pebbles?size=3&size=4")).status == 400
        assert (await s.get("/api/v1/pebbles?size=x")).json["error"]["problems"][0]["field"] == "size"


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=5))
def test_any_object_that_is_sound_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert object_in(orjson.dumps(value)) == value


@given(st.dictionaries(st.text(), _VALUES, min_size=1, max_size=5), st.data())
def test_a_key_that_stands_twice_is_found_wherever_it_stands(value: dict[str, Any], data: st.DataObject) -> None:
    key = orjson.dumps(data.draw(st.sampled_from(sorted(value))))
    twice = orjson.dumps(value)[:-1] + b"," + key + b":1}"
    with pytest.raises(Refused, match="a key twice"):
        object_in(b'{"deeper":[' + twice + b"]}")


@given(st.integers(2**63, 10**40) | st.integers(-(10**40), -(2**63) - 1))
def test_a_number_that_fits_no_64_bits_is_refused(number: int) -> None:
    with pytest.raises(Refused, match="must fit 64 bits"):
        object_in(f'{{"a":[{number}]}}'.encode())


def test_digits_in_texts_and_fractions_are_no_whole_numbers() -> None:
    digits = "1" * 40
    text = f'{{"{digits}":"{digits}","a":0.{digits},"b":1e1,"c":"\\"{digits}"}}'
    assert object_in(text.encode())["a"] == pytest.approx(1 / 9)


@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False)])
def test_64_levels_are_enough(depth: int, fits: bool) -> None:
    body = b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)
    if fits:
        object_in(body)
    else:
        with pytest.raises(Refused, match="64 levels"):
            object_in(body)


# --- sessions


def _pages() -> list[Operation]:
    async def enter(request: web.Request) -> web.Response:
        response = web.Response(text="in")
        request.app[SESSIONS].begin(request[CALLER], response)
        return response

    async def look(request: web.Request) -> web.Response:
        return web.Response(text=request.app[SESSIONS].csrf(request))

    async def change(request: web.Request) -> web.Response:
        request.app[SESSIONS].check_csrf(request, (await form_of(request)).get("guard", ""))
        return web.Response(text="changed")

    form = ("application/x-www-form-urlencoded",)
    return [
        _operation(enter, path="/console/test-enter", shape="page"),
        _operation(look, path="/console/test-look", shape="page"),
        _post(change, path="/console/test-change", shape="page", takes=form),
    ]


async def test_a_browser_that_has_shown_a_token_is_known_until_it_is_revoked(tmp_path: Path) -> None:
    async with served(tmp_path, operations=_pages()) as s:
        entered = await s.get("/console/test-enter", token=s.token("read", name="browser"))
        cookie = entered.header("Set-Cookie") or ""
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "corpusgen_session="))
        s.client.cookie_jar.clear()
        carried = {"Cookie": cookie.partition(";")[0]}
        guard = (await s.send("GET", "/console/test-look", headers=carried)).text
        for sent, status in (({"guard": guard}, 200), ({"guard": "x"}, 403), ({}, 403)):
            assert (await s.send("POST", "/console/test-change", data=sent, headers=carried)).status == status
        revoke(s.corpus, "browser", by="ann")
        assert (await s.send("GET", "/console/test-look", headers=carried)).status == 303


async def test_sessions_of_one_token_do_not_end_those_of_others(tmp_path: Path) -> None:
    async with served(tmp_path, operations=_pages()) as s:
        tokens = [s.token("read", name=name) for name in ("ann", "eve")]

        async def entered(token: str) -> dict[str, str]:
            got = await s.get("/console/test-enter", token=token)
            s.client.cookie_jar.clear()
            return {"Cookie": (got.header("Set-Cookie") or "").partition(";")[0]}

        ann, first = await entered(tokens[0]), await entered(tokens[1])
        last = [await entered(tokens[1]) for _ in range(MOST_OF_ONE)][-1]
        for carried, status in ((ann, 200), (first, 303), (last, 200)):
            assert (await s.send("GET", "/console/test-look", headers=carried)).status == status


# --- logs


def test_a_line_cannot_be_forged() -> None:
    for as_json in (False, True):
        out = io.StringIO()
        Log(out, as_json=as_json, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)).say(
            "request", user='x\nevent=forged user="root"', kind="\x1b[2J\u2028\u202e\ud800"
        )
        assert out.getvalue().count("\n") == 1
        assert out.getvalue().strip().isascii()
        assert out.getvalue().strip().isprintable()
    assert json.loads(out.getvalue())["user"] == 'x\nevent=forged user="root"'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        "authorization: bearer abcdefghijklmnop",
        "x-api-key: sk-ant-api03-verysecretverysecret",
        "OPENAI_API_KEY=sk-proj-abcdefghijklmnopqrstuvwxyz012345",
        "sk-shortone",
        "postgres://ann:hunter2hunter2@db/x",
    ],
)
def test_secrets_are_masked_in_whatever_is_logged(text: str) -> None:
    told = masked_secrets(f"before {text} after")
    assert told.startswith("before ")
    assert not any(word in told for word in ("BBBB", "abcdefghijkl", "verysecret", "shortone", "hunter2"))


def test_what_libraries_log_comes_out_in_the_same_form() -> None:
    out = io.StringIO()
    with catch_logging(Log(out)):
        logging.getLogger("somebody").warning("key %s\nand a second line", SECRET)
    assert re.fullmatch(
        r'time=\S+ event=log level=warning logger=somebody message="key \[secret\]\\nand.*"\n', out.getvalue()
    )


async def test_one_line_is_written_for_each_request(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        await s.get("/v1/models/some-model?x=1")
        await s.post("/v1/chat/completions", CHAT)
        lines = s.log.getvalue().splitlines()
    assert len(lines) == 2
    assert "route=/v1/models/{model:.+} status=400" in lines[0]
    assert "some-model" not in lines[0]
    assert "method=POST route=/v1/chat/completions status=200" in lines[1]
    assert "token=local user=local" in lines[1]


# --- the bus


async def test_who_was_away_hears_what_was_missed_and_how_much_is_lost() -> None:
    bus = Bus(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC), kept=3)
    first = bus.tell("a", {"n": 0}).id
    for n in range(1, 6):
        bus.tell("a", {"n": n})
    bus.close()
    heard = [(event.kind, dict(event.payload)) async for event in bus.listen(first)]
    assert heard == [("missed", {"at_most": 2}), ("a", {"n": 3}), ("a", {"n": 4}), ("a", {"n": 5})]


async def test_every_listener_hears_everything_from_when_it_came() -> None:
    bus = Bus()
    heard: dict[int, list[int]] = {0: [], 1: []}

    async def listen(who: int) -> None:
        async for event in bus.listen():
            heard[who].append(int(str(event.payload["n"])))

    async with asyncio.TaskGroup() as group:
        for who in heard:
            group.create_task(listen(who))
        await asyncio.sleep(0)
        for n in range(250):
            bus.tell("a", {"n": n})
        await asyncio.sleep(0)
        bus.close()
    assert heard == {0: list(range(250)), 1: list(range(250))}
    assert bus.listeners == 0


def test_ids_grow_over_a_restart() -> None:
    before = Bus(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    last = [before.tell("a", {}).id for _ in range(1000)][-1]
    assert Bus(clock=lambda: datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)).tell("a", {}).id > last


# --- spans


def _traced() -> tuple[Spans, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider.get_tracer("test")), exporter


async def test_a_call_of_a_client_is_a_server_span_with_the_conventions_names(tmp_path: Path) -> None:
    spans, exporter = _traced()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with served(tmp_path, gate={"spans": spans}) as s:
        await s.post("/v1/chat/completions", CHAT, traceparent=parent)
    (span,) = [one for one in exporter.get_finished_spans() if one.kind is SpanKind.SERVER]
    assert span.name == "POST /v1/chat/completions"
    told = dict(span.attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert told["http.response.status_code"] == 200
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert "lagoon" not in str(told)


async def test_a_call_to_a_teacher_is_a_client_span_below_it(tmp_path: Path) -> None:
    spans, exporter = _traced()
    async with served(tmp_path, gate={"spans": spans}) as s:
        await s.post("/v1/chat/completions", CHAT)
        await s.post("/v1/chat/completions", CHAT)  # known: nobody is asked
    (call,) = [one for one in exporter.get_finished_spans() if one.kind is SpanKind.CLIENT]
    above = next(one for one in exporter.get_finished_spans() if one.kind is SpanKind.SERVER)
    assert call.parent is not None
    assert call.parent.span_id == (above.context.span_id if above.context else None)
    told: dict[str, Any] = dict(call.attributes or {})
    assert call.name == "chat mock-model"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "endpoint"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "mock-model"
    assert told["gen_ai.request.max_tokens"] == 16
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.usage.output_tokens"] > 0
    assert "lagoon" not in str(told)


async def test_a_call_that_fails_says_how_and_not_about_what(tmp_path: Path) -> None:
    spans, exporter = _traced()
    failing = CHAT | {"messages": [{"role": "user", "content": "lagoon fault:400"}]}
    async with served(tmp_path, gate={"spans": spans}) as s:
        assert (await s.post("/v1/chat/completions", failing)).status == 400
    (call,) = [one for one in exporter.get_finished_spans() if one.kind is SpanKind.CLIENT]
    assert dict(call.attributes or {})["error.type"] == "RequestRefused"
    assert "lagoon" not in call.to_json()


# --- where it listens


async def test_a_client_that_waits_to_be_told_to_go_on_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        body = json.dumps(CHAT).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nExpect: 100-continue\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_what_is_no_http_is_counted_and_logged_without_what_it_was(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        writer.write(f"nonsense {SECRET}\r\n\r\n".encode())
        assert b"400" in await reader.readline()
        writer.close()
        assert s.service.meter.value("corpusgen_requests_total", "other", "other", "400") == 1
        assert "event=unreadable status=400 address=127.0.0.1" in s.log.getvalue()
        assert SECRET not in s.log.getvalue()


async def test_behind_a_proxy_its_word_tells_who_calls(tmp_path: Path) -> None:
    settings = {"behind_proxy": True, "hosts": frozenset({"llm.example.org"})}
    told = {"Host": "llm.example.org", "X-Forwarded-For": "203.0.113.5, 203.0.113.9"}
    async with served(tmp_path, gate=settings | {"open_without_tokens": False}) as s:
        assert (await s.get("/healthz")).status == 421
        assert (await s.send("GET", "/healthz", headers=told | {"Origin": "https://llm.example.org"})).status == 200
        assert "address=203.0.113.9" in s.log.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (("203.0.113.1", "203.0.113.9"), "203.0.113.9"),
        (("203.0.113.1, 2001:db8::9",), "2001:db8::9"),
        (("203.0.113.1", "x status=200"), "127.0.0.1"),
        (("203.0.113.1,",), "127.0.0.1"),
        (("fe80::1%a b",), "127.0.0.1"),
    ],
)
async def test_of_a_proxys_lines_the_last_address_counts_and_only_if_it_is_one(
    tmp_path: Path, lines: tuple[str, ...], address: str
) -> None:
    async with served(tmp_path, gate={"behind_proxy": True, "open_without_tokens": False}) as s:
        await s.send("GET", "/healthz", headers=[("X-Forwarded-For", line) for line in lines])
        assert f" address={address} " in s.log.getvalue().splitlines()[-1]


@pytest.mark.parametrize("name", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "x-forwarded-host"])
async def test_without_tokens_nobody_comes_in_through_a_proxy(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as s:
        through = {name: "203.0.113.9"}
        assert (await s.send("POST", "/v1/chat/completions", json=CHAT, headers=through)).status == 403
        assert (await s.send("GET", "/console", headers=through)).status == 403
        assert (await s.send("GET", "/healthz", headers=through)).status == 200
        assert (await s.get("/v1/models")).status == 200
        token = s.token("ask")
        assert (await s.send("GET", "/v1/models", headers=through | {"Authorization": f"Bearer {token}"})).status == 200


@pytest.mark.parametrize("host", ["llm.example.org", "192.0.2.1", "127.0.0.1.example.org", "[::2]"])
async def test_without_tokens_nobody_comes_in_by_another_machines_name(tmp_path: Path, host: str) -> None:
    async with served(tmp_path, gate={"hosts": frozenset({host, "localhost", "127.0.0.5:80", "[::1]"})}) as s:
        assert (await s.send("GET", "/v1/models", headers={"Host": host})).status == 403
        for own in ("localhost", "127.0.0.5:80", "[::1]"):
            assert (await s.send("GET", "/v1/models", headers={"Host": own})).status == 200


async def exchanged(s: Served, *pieces: bytes) -> bytes:
    """Everything that comes back on one connection until it is closed, whatever was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
    found = b""
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece.replace(b"HOST", b"127.0.0.1:%d" % s.port))
            await writer.drain()
        while got := await reader.read(65_536):
            found += got
    writer.close()
    return found


LINE = b"GET /healthz HTTP/1.1\r\nHost: HOST\r\n"


async def test_a_head_that_grows_is_not_kept_and_a_body_may(tmp_path: Path) -> None:
    many = b"".join(b"X-%d: %s\r\n" % (at, b"a" * 4_000) for at in range(12))
    body = json.dumps(CHAT | {"user": "x" * 300_000}).encode()
    asks = b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
    asks += b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with served(tmp_path) as s:
        for sent in ((LINE + many,), (LINE, many), (LINE + b"\r\n" + LINE + many,), (LINE, b"X: " + b"a" * 9_000)):
            assert b" 431 " in await exchanged(s, *sent)
        assert (await exchanged(s, asks + body)).startswith(b"HTTP/1.1 200")
        pipelined = (LINE + b"\r\n") * 2_000 + LINE + b"Connection: close\r\n\r\n"
        assert (await exchanged(s, pipelined)).count(b"HTTP/1.1 200") == 2_001


async def test_a_head_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    async with served(tmp_path, door={"headers_s": 0.3}) as s:
        assert await exchanged(s, b"") == b""
        assert await exchanged(s, LINE) == b""
        assert (await exchanged(s, LINE + b"\r\n", LINE)).count(b"HTTP/1.1 200") == 1
        kept, writer = await asyncio.open_connection("127.0.0.1", s.port)
        for _ in range(2):  # who asks nothing more may still come back
            writer.write((LINE + b"\r\n").replace(b"HOST", b"127.0.0.1:%d" % s.port))
            assert b"200" in await kept.readuntil(b"}")
            await asyncio.sleep(0.5)
        writer.close()


async def test_an_address_elsewhere_has_so_many_connections_and_this_machine_any_number(tmp_path: Path) -> None:
    async with served(tmp_path, door={"most_of_one": 2, "exempt": lambda _: False}) as s:
        held = [await asyncio.open_connection("127.0.0.1", s.port) for _ in range(2)]
        assert (await exchanged(s, b"")).startswith(b"HTTP/1.1 503")
        held[0][1].close()
        await held[0][1].wait_closed()
        tries = [await exchanged(s, LINE + b"Connection: close\r\n\r\n") for _ in range(50)]
        assert tries[-1].startswith(b"HTTP/1.1 200")
        held[1][1].close()
    assert [is_here(one) for one in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "203.0.113.9", "fe80::1%eth0")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    guests = Guests(1, is_here)
    assert (guests.enter("2001:db8::1"), guests.enter("2001:db8::2")) == ("2001:db8::/64", None)


async def test_nobody_is_told_to_go_on_who_is_to_be_refused(tmp_path: Path) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    async with served(tmp_path) as s:
        s.token("ask")
        found = await exchanged(s, head + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 401")
        assert b" 100 " not in found


async def test_a_body_comes_whole_or_in_chunks_and_in_no_other_way(tmp_path: Path) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    async with served(tmp_path) as s:
        for coding in (b"gzip, chunked", b"identity, chunked"):
            sent = head + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            assert (await exchanged(s, sent)).startswith(b"HTTP/1.1 400")
        odd = head + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}"
        assert (await exchanged(s, odd)).startswith(b"HTTP/1.1 417")


async def test_a_header_of_ours_that_is_no_text_is_refused(tmp_path: Path) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    body = json.dumps(CHAT).encode()
    async with served(tmp_path) as s:
        for name in (b"x-corpusgen-run", b"X-Corpusgen-Sample", b"x-corpusgen-user", b"x-corpusgen-csrf"):
            sent = head + name + b": \xff\xb2\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            found = await exchanged(s, sent)
            assert found.startswith(b"HTTP/1.1 400"), found
        assert "event=unexpected" not in s.log.getvalue()


async def test_another_site_may_link_to_a_page_and_nothing_else(tmp_path: Path) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with served(tmp_path) as s:
        assert (await s.send("GET", "/console/login", headers=elsewhere)).status == 200
        assert (await s.send("GET", "/v1/models", headers=elsewhere)).status == 403
        assert (await s.send("POST", "/console/login", headers=elsewhere, data={"token": "x"})).status == 403


@pytest.mark.parametrize("command", re.findall(r"^corpusgen .*$", OPERATING, re.MULTILINE))
def test_a_command_of_the_page_on_running_it_can_be_typed(command: str) -> None:
    words = shlex.split(command)[1:]
    found: click.Command = commands
    while isinstance(found, click.Group):
        below = found.get_command(click.Context(found), words.pop(0))
        assert below is not None
        found = below
    found.make_context(found.name, words)


@pytest.mark.parametrize("command", ["serve", "tokens"])
def test_help_loads_nothing_heavy(command: str) -> None:
    listed = f"from corpusgen.cli.main import main; main(['{command}', '--help'])"
    code = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); {listed}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}
    assert "corpusgen" in loaded, done.stderr
    assert not loaded & {"aiohttp", "jinja2", "opentelemetry", "apsw", "pyarrow", "duckdb", "numpy", "pydantic"}


def test_names_are_those_of_this_machine_and_those_it_was_told() -> None:
    found = hosts_of("127.0.0.1", 8484, ["LLM.example.org"], tls=False, behind_proxy=False)
    assert {"localhost:8484", "127.0.0.1:8484", "[::1]:8484", "llm.example.org"} <= found
    assert "localhost" not in found
    assert "localhost" in hosts_of("127.0.0.1", 80, [], tls=False, behind_proxy=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "--tls-cert"),
        (["--host", "0.0.0.0", "--behind-proxy"], "corpusgen tokens create"),
        (["--behind-proxy"], "corpusgen tokens create"),
        (["--tls-cert", "x.pem"], "give both or neither"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "no certificate"),
        (["--host-name", "http://x"], "--host-name"),
        (["--host-name", "*"], "--host-name"),
        (["--host-name", "llm.example.org"], "corpusgen tokens create"),
        (["--host", "192.0.2.77", "--tls-cert", "x", "--tls-key", "y"], "corpusgen tokens create"),
    ],
)
def test_a_door_that_stands_open_is_refused_with_what_to_do(tmp_path: Path, arguments: list[str], told: str) -> None:
    ran = corpusgen("serve", "--corpus", tmp_path / "c", *arguments)
    assert ran.code == 2
    assert told in ran.stderr


def test_a_corpus_is_its_owners_alone_or_that_is_said(tmp_path: Path) -> None:
    made, there = tmp_path / "made", tmp_path / "there"
    there.mkdir(mode=0o755)
    assert "chmod 700" not in corpusgen("serve", "--corpus", made, "--behind-proxy").stderr
    assert made.stat().st_mode & 0o777 == 0o700
    assert "chmod 700" in corpusgen("serve", "--corpus", there, "--behind-proxy").stderr
    assert corpusgen("serve", "--init", "--corpus", tmp_path / "begun").code == 0
    assert (tmp_path / "begun").stat().st_mode & 0o777 == 0o700


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    corpusgen("serve", "--init", "--corpus", tmp_path / "c")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = corpusgen("serve", "--corpus", tmp_path / "c", "--port", str(port))
    assert ran.code == 2
    assert f"127.0.0.1:{port} cannot be listened at" in ran.stderr


def test_two_sockets_do_not_share_a_port() -> None:
    with bound("127.0.0.1", 0) as first, pytest.raises(UsageError, match="another server"):
        bound("127.0.0.1", first.getsockname()[1])


def test_init_writes_a_file_once(tmp_path: Path) -> None:
    assert corpusgen("serve", "--init", "--corpus", tmp_path / "c").code == 0
    again = corpusgen("serve", "--init", "--corpus", tmp_path / "c")
    assert again.code == 2
    assert "is there already" in again.stderr


def test_a_corpus_that_is_damaged_is_told_as_everywhere(tmp_path: Path) -> None:
    corpusgen("serve", "--init", "--corpus", tmp_path / "c")
    (tmp_path / "c" / "journal.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5_000)
    ran = corpusgen("serve", "--corpus", tmp_path / "c", "--json")
    assert ran.code == 6
    assert ran.object["error"] == "CorpusDamaged"
