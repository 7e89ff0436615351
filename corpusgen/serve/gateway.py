"""The recording gateway: OpenAI's and Anthropic's addresses, answered by the desk."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import orjson
from aiohttp import web

from corpusgen.budget.amounts import period_of
from corpusgen.errors import CorpusgenError, UnknownTeacher
from corpusgen.records import Api, Json
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import STUDENT
from corpusgen.serve.desk import Desk, Given, Offered, Wanted
from corpusgen.serve.gate import noted
from corpusgen.serve.memory import Remembered
from corpusgen.serve.money import upstream_id, usd
from corpusgen.serve.reading import bytes_of, object_in, parameters_of
from corpusgen.serve.refusals import Busy, Contradicted, event_of, refusal
from corpusgen.serve.routes import CALLER, Operation, Shape, of_vendor
from corpusgen.serve.service import SERVICE, Service
from corpusgen.serve.statuses import Hidden
from corpusgen.serve.wires.calls import BadCall, Call, Wire, read_call

KEEP_ALIVE_S: Final = 10.0
"""How long nothing may come before a comment says that somebody is still there."""
_EVENTS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_OWN: Final = ("x-corpusgen-task", "x-corpusgen-run", "x-corpusgen-use", "x-corpusgen-user", "x-corpusgen-sample")
_BETA: Final = "anthropic-beta"
_DONE: Final = b"data: [DONE]"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_USES: Final = ("internal", "hosted", "weights_released")
_SHAPES: Final[Mapping[Wire, Shape]] = {
    "chat": "openai",
    "responses": "openai",
    "completion": "openai",
    "messages": "anthropic",
}


def operations(service: Service) -> list[Operation]:
    """What clients of OpenAI and Anthropic call."""
    most = service.config.limits.body_bytes
    asking: list[tuple[str, Wire, str]] = [
        ("/v1/chat/completions", "chat", "Have a teacher or a student answer a chat, as OpenAI's chat completions"),
        ("/v1/responses", "responses", "The same as OpenAI's responses"),
        ("/v1/completions", "completion", "Have a teacher go on with a text, as OpenAI's completions"),
        ("/v1/messages", "messages", "Have a teacher or a student answer, as Anthropic's messages"),
    ]
    found = [
        of_vendor("POST", path, partial(_asked, wire), summary, _SHAPES[wire], most) for path, wire, summary in asking
    ]
    found += [
        of_vendor("POST", "/v1/messages/count_tokens", _count_tokens, "Bound what a call takes", "anthropic", most),
        of_vendor("POST", "/v1/embeddings", _embeddings, "Have texts embedded", "openai", most),
        of_vendor("GET", "/v1/models", _models, "What may be named as model", "openai", most),
        of_vendor("GET", "/v1/models/{model:.+}", _model, "One of these", "openai", most),
    ]
    return found


# --- a call -----------------------------------------------------------------------------------------------------------


async def _asked(wire: Wire, request: web.Request) -> web.StreamResponse:
    service, caller, shape = request.app[SERVICE], request[CALLER], _SHAPES[wire]
    try:
        raw = await bytes_of(request)
        service.desk.admit(caller)
        mark = _mark(wire, caller, request.headers, raw)
        user = _user(request.headers, caller)
        if (found := service.desk.remembered(mark, user)) is not None:
            limits = _limit_headers(service.desk, caller, shape, found.room.key.at)
            return web.Response(body=found.body, headers={**found.headers, **limits} if limits else found.headers)
        call = _with_betas(read_call(wire, object_in(raw)), request.headers)
        wanted = wanted_of(request.headers, caller, service)
        if call.probe:
            return _of_probe(service.desk, call, caller)
        service.desk.check_label(caller, wanted)
        asking = Asking(service=service, caller=caller, call=call, wanted=wanted, mark=mark)
        return await (_streamed(request, asking) if call.stream else _whole(asking))
    except CorpusgenError as error:
        service.meter.add("corpusgen_refused_total", 1, type(error).__name__)
        response = refusal(shape, error, service.desk.hidden_from(caller))
        response.headers.update(_limit_headers(service.desk, caller, shape))
        return response


def _with_betas(call: Call, headers: Mapping[str, str]) -> Call:
    """The call, with the betas that its client asks for among what is left out: no header of his is passed on."""
    if call.wire != "messages" or not headers.get(_BETA):
        return call
    return replace(call, ignored=(*call.ignored, _BETA))


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A call on its way through the gateway."""

    service: Service
    caller: Caller
    call: Call
    wanted: Wanted
    mark: bytes

    @property
    def hidden(self) -> Hidden:
        """What errors do not tell its caller."""
        return self.desk.hidden_from(self.caller)

    @property
    def desk(self) -> Desk:
        """Who has it answered."""
        return self.service.desk

    async def ask(self, ear: _Ear | None = None) -> Given:
        """Have it answered."""
        if ear is None:
            return await self.desk.ask(self.call, self.caller, self.wanted)
        return await self.desk.ask(self.call, self.caller, self.wanted, ear.hear, begun=ear.begin)

    def body_of(self, given: Given) -> bytes:
        """The answer in the client's wire."""
        from corpusgen.serve.wires.rendering import rendered

        return rendered(
            self.call,
            given.completions,
            api=given.api,
            body=given.body,
            created=given.created,
            name=given.record_ids[0] if given.record_ids else given.teacher,
        )

    def headers_of(self, given: Given) -> dict[str, str]:
        """What is said beside an answer."""
        return {**_said_of(given, self.call), **self.limits()}

    def limits(self) -> dict[str, str]:
        """How many calls are left."""
        at = None if self.call.model.startswith(STUDENT) else self.desk.seat_of(self.call.model)
        return _limit_headers(self.desk, self.caller, _SHAPES[self.call.wire], at)

    def remember(self, given: Given, body: bytes, content_type: str) -> None:
        """Have it at hand for the very same bytes."""
        if given.room is None:
            return
        spent = given.cost_microusd + given.saved_microusd
        headers = {
            **_said_of(given, self.call),
            "x-corpusgen-cache": "hit",
            "x-corpusgen-cost-usd": "0",
            "x-corpusgen-saved-usd": usd(spent),
            "Content-Type": content_type,
        }
        found = Remembered(
            room=given.room,
            body=body,
            headers=headers,
            record_id=given.record_ids[0],
            saved_microusd=spent,
        )
        self.desk.remember(self.mark, found)


async def _whole(asking: Asking) -> web.Response:
    given = await asking.ask()
    body = asking.body_of(given)
    asking.remember(given, body, "application/json")
    return web.Response(body=body, headers=asking.headers_of(given), content_type="application/json")


def _of_probe(desk: Desk, call: Call, caller: Caller) -> web.Response:
    from corpusgen.serve.wires.rendering import probe_answer

    headers = {"x-corpusgen-cache": "probe", "x-corpusgen-cost-usd": "0"}
    headers |= _limit_headers(desk, caller, _SHAPES[call.wire])
    if call.stream:
        from corpusgen.serve.wires.replay import events_of

        events = events_of(call.wire, probe_answer(call), usage=call.stream_usage)
        return web.Response(body=b"".join(events), headers={**_EVENTS, **headers})
    return web.Response(body=probe_answer(call), headers=headers, content_type="application/json")


# --- streams ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Ear:
    """What has been heard of an answer and not been passed on yet."""

    events: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    heard: int = 0
    told: dict[str, str] = field(default_factory=dict)
    """What is known of an answer before it comes; what it costs is not."""

    def begin(self, record_ids: tuple[str, ...], teacher: str) -> None:
        """Hear what the answer is to become."""
        self.told = {"x-corpusgen-record": ",".join(record_ids), "x-corpusgen-teacher": teacher}

    def hear(self, event: bytes) -> None:
        """Take an event; None of them are lost, as the answer is in memory whole at its end anyway."""
        self.heard += 1
        self.events.put_nowait(event)

    def ended(self, _: object) -> None:
        """No more will come."""
        self.events.put_nowait(None)

    async def next(self, timeout_s: float) -> bytes | None:
        """The next event; empty where none came in time, None at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.events.get()
        except TimeoutError:
            return b""


async def _streamed(request: web.Request, asking: Asking) -> web.StreamResponse:
    """The answer as events: those of the teacher as they come where it speaks the client's wire, else made anew."""
    desk, ear = asking.desk, _Ear()
    with _counted(desk, asking.service.config.limits.open_streams):
        asked = asyncio.ensure_future(asking.ask(ear if _passes(asking) else None))
        asked.add_done_callback(ear.ended)
        try:
            first = await ear.next(KEEP_ALIVE_S)
            if first is None and (asked.exception() is not None or not ear.heard):
                return _replayed(asking, await asked)
            headers = {
                **_EVENTS,
                **ear.told,
                # Where nothing has come yet, somebody else may be having it asked.
                **({"x-corpusgen-cache": "miss"} if ear.heard else {}),
                **_ignored(asking.call),
                **asking.limits(),
            }
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            try:
                await _pass_on(response, asking, ear, asked, first)
            except ConnectionError:  # the client's
                raise
            except Exception as error:  # noqa: BLE001 - a mistake of ours: who has half an answer must hear of it
                await response.write(event_of(asking.call.wire, noted(request, error), asking.hidden))
            return response
        finally:
            if not asked.done():  # the client has left; the desk goes on by itself
                asked.cancel()


@contextmanager
def _counted(desk: Desk, most: int) -> Iterator[None]:
    if desk.streams >= most:
        raise Busy(f"{desk.streams} answers are being streamed, and limits.open_streams is no more; come back")
    desk.streams += 1
    try:
        yield
    finally:
        desk.streams -= 1


def _passes(asking: Asking) -> bool:
    """Whether what the teacher says can be passed on as it comes: in the same wire."""
    if asking.call.model.startswith(STUDENT):
        return False
    offer = asking.desk.config.spec.teachers[asking.desk.seat_of(asking.call.model)]
    scheme, wire = offer.name.partition("/")[0], asking.call.wire
    if wire == "completion":
        return True
    return wire == _api_of(scheme, offer.api)


def _api_of(scheme: str, api: str | None) -> str:
    from corpusgen.teachers.own import known_rows

    row = next((row for row in known_rows() if row.name == scheme), None)
    return "messages" if row is not None and row.wire == "messages" else api or "chat"


async def _pass_on(
    response: web.StreamResponse, asking: Asking, ear: _Ear, asked: asyncio.Future[Given], event: bytes | None
) -> None:
    """Write what is heard until the end of the answer, and what its client waits for at the end."""
    call, hidden = asking.call, asking.hidden
    while event is not None:
        if event == b"":
            await response.write(b": keep-alive\n\n")
        elif event.strip() != _DONE and (shown := _for_client(call, event, hidden)) is not None:
            await response.write(shown)
        event = await ear.next(KEEP_ALIVE_S)
    try:
        given = await asked
    except CorpusgenError as error:
        asking.service.meter.add("corpusgen_refused_total", 1, type(error).__name__)
        await response.write(event_of(call.wire, error, hidden))
        return
    if not ear.heard:
        async for piece in _pieces(_events_of(asking, given)):
            await response.write(piece)
    elif call.wire in ("chat", "completion"):  # not before it is kept: what comes after it is read by nobody
        await response.write(_DONE + b"\n\n")


def _for_client(call: Call, event: bytes, hidden: Hidden) -> bytes | None:
    """The event as its client is to see it; None for usage that it did not ask for."""
    if b'"error"' in event and _tells_of_error(event):
        return hidden.out_of(event.decode("utf-8", "replace")).encode()
    if call.stream_usage or call.wire not in ("chat", "completion") or b'"usage"' not in event:
        return event
    line = next((line for line in event.splitlines() if line.startswith(b"data:")), b"data:")
    try:
        found = orjson.loads(line[5:])
    except orjson.JSONDecodeError:
        return event
    return None if isinstance(found, dict) and found.get("usage") and not found.get("choices") else event


def _tells_of_error(event: bytes) -> bool:
    for line in event.splitlines():
        if line.startswith(b"data:"):
            try:
                found = orjson.loads(line[5:])
            except orjson.JSONDecodeError:
                return True
            if isinstance(found, dict) and (found.get("error") or found.get("type") == "error"):
                return True
    return False


def _replayed(asking: Asking, given: Given) -> web.Response:
    """A whole answer as the events a client reads, all at once."""
    body = b"".join(_events_of(asking, given))
    asking.remember(given, body, _EVENTS["Content-Type"])
    return web.Response(body=body, headers={**_EVENTS, **asking.headers_of(given)})


def _events_of(asking: Asking, given: Given) -> Iterator[bytes]:
    from corpusgen.serve.wires.replay import events_of

    return events_of(asking.call.wire, asking.body_of(given), usage=asking.call.stream_usage)


async def _pieces(events: Iterator[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event


# --- who, what for ----------------------------------------------------------------------------------------------------


def _mark(wire: Wire, caller: Caller, headers: Mapping[str, str], raw: bytes) -> bytes:
    """What a call is remembered by: everything that can make its answer or its place another."""
    own = [headers.get(name, "") for name in (*_OWN, _BETA)]
    seed = orjson.dumps([wire, caller.task, caller.intended_use, *own])
    return hashlib.sha256(seed + b"\n" + raw).digest()


def wanted_of(headers: Mapping[str, str], caller: Caller, service: Service) -> Wanted:
    """What a call's headers and its token say of it. Raises Contradicted where they do not agree, BadCall."""
    task, run = _named(headers, "x-corpusgen-task"), _named(headers, "x-corpusgen-run")
    if caller.task is not None and task not in (None, caller.task):
        raise Contradicted(f"x-corpusgen-task says {task}, and this token is for {caller.task}; leave the header out")
    return Wanted(
        task=caller.task or task or service.config.task,
        run=run or "",
        use=_use(headers, caller, service),
        user=_user(headers, caller),
        sample=_sample(headers.get("x-corpusgen-sample")),
    )


def _named(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if value is not None and not _NAME.fullmatch(value):
        raise BadCall(f"{name} must look like {_NAME.pattern}", field=name)
    return value


def _use(headers: Mapping[str, str], caller: Caller, service: Service) -> Json:
    use, told = service.config.intended_use.model_dump(mode="json"), headers.get("x-corpusgen-use")
    bound = caller.intended_use or {}
    if told is not None and told not in _USES:
        raise BadCall(f"x-corpusgen-use must be one of {', '.join(_USES)}", field="x-corpusgen-use")
    mine = bound.get("student_distribution")
    if told is not None and mine not in (None, told):
        raise Contradicted(f"x-corpusgen-use says {told}, and this token is for {mine}; leave the header out")
    return use | bound | ({"student_distribution": told} if told is not None else {})


def _user(headers: Mapping[str, str], caller: Caller) -> str:
    told = headers.get("x-corpusgen-user")
    if told is None or told == caller.user:
        return caller.user
    if not (caller.may("admin") or caller.may_name_users):
        raise Contradicted("x-corpusgen-user: this token may not ask in somebody else's name; leave the header out")
    if not _USER.fullmatch(told) or period_of(f"user:{told}")[1] != "total":
        raise BadCall(
            f"x-corpusgen-user must look like {_USER.pattern}, and not end like @2026-11", field="x-corpusgen-user"
        )
    return told


def _sample(value: str | None) -> int:
    if value is None:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise BadCall("x-corpusgen-sample must be a whole number below 1000000", field="x-corpusgen-sample")
    return int(value)


# --- what is said beside an answer ------------------------------------------------------------------------------------


def _said_of(given: Given, call: Call) -> dict[str, str]:
    headers = {
        "x-corpusgen-record": ",".join(given.record_ids),
        "x-corpusgen-cache": given.cache if given.student is None else "student",
        "x-corpusgen-cost-usd": usd(given.cost_microusd),
        "x-corpusgen-teacher": given.teacher,
        **_ignored(call, given.api),
    }
    if given.known:
        headers["x-corpusgen-saved-usd"] = usd(given.saved_microusd)
    if given.abstained:
        headers["x-corpusgen-student"] = "abstained"
    return headers | upstream_id(given.request_id)


def _ignored(call: Call, api: Api | None = None) -> dict[str, str]:
    """What was left out, on the way into another wire format too."""
    found = call.ignored
    if api is not None and api != call.wire:
        from corpusgen.serve.wires.left_out import left_out

        found = (*found, *left_out(call, api))
    return {"x-corpusgen-ignored": ",".join(dict.fromkeys(found))} if found else {}


def _limit_headers(desk: Desk, caller: Caller, shape: Shape, at: int | None = None) -> dict[str, str]:
    found = desk.limits_of(caller, at)
    if found is None:
        return {}
    most, left, reset_s = found
    if shape == "anthropic":
        return {
            "anthropic-ratelimit-requests-limit": str(most),
            "anthropic-ratelimit-requests-remaining": str(left),
            "anthropic-ratelimit-requests-reset": desk.later(reset_s),
        }
    return {
        "x-ratelimit-limit-requests": str(most),
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
    }


# --- models, counts, embeddings ---------------------------------------------------------------------------------------


async def _models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    parameters_of(request)
    models, since = service.desk.models(), int(service.started.timestamp())
    if "anthropic-version" not in request.headers:
        return _json({"object": "list", "data": [_openai_model(one, since) for one in models]})
    data = [_anthropic_model(one, service) for one in models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return _json({"data": data, "has_more": False, **ends})


async def _model(request: web.Request) -> web.Response:
    service, name = request.app[SERVICE], request.match_info["model"]
    shape: Shape = "anthropic" if "anthropic-version" in request.headers else "openai"
    found = next((one for one in service.desk.models() if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in service.desk.models())
        return refusal(shape, UnknownTeacher(f"no model {name[:100]!r} here; there are: {names}"))
    if shape == "anthropic":
        return _json(_anthropic_model(found, service))
    return _json(_openai_model(found, int(service.started.timestamp())))


def _openai_model(one: Offered, since: int) -> dict[str, Json]:
    more = {"kind": one.kind, "teacher": one.teacher, "price": one.price, "decision": one.outcome}
    owner = one.provider or "corpusgen"
    return {"id": one.name, "object": "model", "created": since, "owned_by": owner, "corpusgen": more}


def _anthropic_model(one: Offered, service: Service) -> dict[str, Json]:
    since = service.started.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": one.name, "display_name": one.teacher or one.name, "created_at": since}


async def _count_tokens(request: web.Request) -> web.Response:
    """How many tokens a call takes at most, as budgets count it; nothing is sent."""
    service, caller = request.app[SERVICE], request[CALLER]
    try:
        service.desk.admit(caller)
        body = object_in(await bytes_of(request))
        body.setdefault("max_tokens", 1)
        call = read_call("messages", body)
        bound = service.desk.tokens_bound(call, wanted_of(request.headers, caller, service))
    except CorpusgenError as error:
        return refusal("anthropic", error, service.desk.hidden_from(caller))
    return _json({"input_tokens": bound}, {"x-corpusgen-count": "bound"})


async def _embeddings(request: web.Request) -> web.Response:
    from corpusgen.serve.embeddings import embedded

    service, caller = request.app[SERVICE], request[CALLER]
    try:
        service.desk.admit(caller)
        body = object_in(await bytes_of(request))
        wanted = wanted_of(request.headers, caller, service)
        service.desk.check_label(caller, wanted)
        response = await embedded(service.desk, body, caller, wanted)
        response.headers.update(_limit_headers(service.desk, caller, "openai", service.desk.seat_of(body["model"])))
        return response
    except CorpusgenError as error:
        response = refusal("openai", error, service.desk.hidden_from(caller))
        response.headers.update(_limit_headers(service.desk, caller, "openai"))
        return response


def _json(value: Json, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), headers=headers, content_type="application/json")
