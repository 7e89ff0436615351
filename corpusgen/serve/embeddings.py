"""Embeddings: budgeted, asked once, and answered from the store when they are asked for again.

They train no student, so they are no records of a dataset; the call is settled and stored with what was asked, of whom
and under which terms, as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import orjson
from aiohttp import web

from corpusgen.errors import BudgetExhausted, InvalidAnswer, UnsupportedParameter
from corpusgen.fanout.asking_one import ask_one
from corpusgen.records import Api, Completion, Json, Message, Reply, Request, Usage
from corpusgen.serve.callers import Caller
from corpusgen.serve.desk import Desk, Wanted, prompt_of
from corpusgen.serve.money import figures_of, upstream_id, usd
from corpusgen.serve.wires.calls import BadCall
from corpusgen.teachers.endpoint import Endpoint
from corpusgen.teachers.teacher import Teacher, TeacherCard

PATH: Final = "/embeddings"
MOST: Final = 2_048
"""Texts of one call, as OpenAI takes them."""
_KNOWN: Final = ("model", "input", "encoding_format", "dimensions", "user")
_PASSED: Final = ("encoding_format", "dimensions")
_API: Final = cast("Api", "embeddings")  # of no prompt and no record, so no other part needs to know the word


@dataclass(frozen=True)
class Embedding:
    """A server asked for embeddings in a teacher's place."""

    endpoint: Endpoint

    @property
    def card(self) -> TeacherCard:
        """The server's."""
        return self.endpoint.card

    def input_tokens_bound(self, request: Request) -> int:
        """No more tokens than this will be billed."""
        return self.endpoint.input_tokens_bound(request)

    async def first_tokens(self, labels: Sequence[str]) -> None:
        """None: embeddings have no tokens."""

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once."""
        texts = [message.content for message in request.messages]
        told = {name: request.parameters[name] for name in _PASSED if name in request.parameters}
        body = orjson.dumps({"model": request.model, "input": texts, **told})
        return await self.endpoint.transport.post(PATH, body, timeout_s=timeout_s)

    def read(self, request: Request, reply: Reply) -> Completion:
        """What was used; the vectors stay where they came. Raises InvalidAnswer unless there is one for each text."""
        try:
            body = orjson.loads(reply.body)
            vectors = [one["embedding"] for one in body["data"]]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidAnswer(f"what came is no list of embeddings ({type(error).__name__})") from error
        if len(vectors) != len(request.messages) or not all(isinstance(one, list | str) and one for one in vectors):
            raise InvalidAnswer(f"{len(request.messages)} embeddings are needed, {len(vectors)} came")
        served = body.get("model")
        return Completion(
            text="",
            finish_reason="stop",
            usage=self._usage(request, body.get("usage")),
            model_served=served if isinstance(served, str) else None,
        )

    def _usage(self, request: Request, told: Json) -> Usage:
        count = told.get("prompt_tokens") if isinstance(told, dict) else None
        if isinstance(count, int) and count > 0:
            return Usage(input_tokens=count, output_tokens=0)
        return Usage(input_tokens=self.input_tokens_bound(request), output_tokens=0, counted=False)

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """There is one."""
        return (self.read(request, reply),)

    async def aclose(self) -> None:
        """The server is its teacher's to close."""


async def embedded(desk: Desk, body: Mapping[str, Json], caller: Caller, wanted: Wanted) -> web.Response:
    """The answer to a call for embeddings."""
    _check(body)
    return await desk.working(_embedded(desk, body, caller, wanted))


async def _embedded(desk: Desk, body: Mapping[str, Json], caller: Caller, wanted: Wanted) -> web.Response:
    room = await desk.room(desk.seat_of(body["model"]), wanted)
    with room:
        teacher = Embedding(_endpoint_of(room.asker.teacher))
        request = desk.fit_to_send(room, _request(body, teacher.card, wanted.sample), wanted)
        asker = replace(desk.asker_of(room, caller, wanted), teacher=teacher, elsewhere=None)
        try:
            prompt = prompt_of(room, request, wanted, 0)
            said = await desk.seated(room, asker, request, lambda asker: ask_one(asker, prompt, recorded=False))
        except BudgetExhausted as error:
            error.figures = figures_of(asker, request)
            raise
    cost = said.answer.cost_microusd
    if not said.bought:
        desk.count_hit("", wanted.user, cost)
    headers = {
        "x-corpusgen-cache": "miss" if said.bought else "hit",
        "x-corpusgen-cost-usd": usd(cost if said.bought else 0),
        "x-corpusgen-teacher": teacher.card.name,
        **({} if said.bought else {"x-corpusgen-saved-usd": usd(cost)}),
        **({"x-corpusgen-ignored": "user"} if body.get("user") is not None else {}),
        **upstream_id(said.answer.provider_request_id),
    }
    return web.Response(body=said.answer.body, headers=headers, content_type="application/json")


def _endpoint_of(teacher: Teacher) -> Endpoint:
    if isinstance(teacher, Endpoint) and teacher.sdk is None and teacher.card.chat_api in ("chat", "responses"):
        return teacher
    raise UnsupportedParameter(f"{teacher.card.name} gives no embeddings; name a model of an OpenAI-compatible server")


def _request(body: Mapping[str, Json], card: TeacherCard, sample: int) -> Request:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    told: dict[str, Any] = {name: body[name] for name in _PASSED if body.get(name) is not None}
    return Request(
        teacher=card.identity,
        model=card.model,
        api=_API,
        messages=tuple(Message(role="user", content=text) for text in texts),
        parameters={**told, "max_tokens": 0},  # nothing is written, which bounds the price
        sample_index=sample,
    )


def _check(body: Mapping[str, Json]) -> None:
    for name in body:
        if name not in _KNOWN:
            raise BadCall(f"{name[:60]!r} is not known; there are: {', '.join(_KNOWN)}", field=name[:60])
    if not isinstance(body.get("model"), str):
        raise BadCall("model is required, as text", field="model")
    texts = body.get("input")
    if not (isinstance(texts, str) or (isinstance(texts, list) and all(isinstance(one, str) for one in texts))):
        raise BadCall("input must be a text or a list of texts; lists of token numbers are not taken", field="input")
    if not texts or not all(texts) or (isinstance(texts, list) and len(texts) > MOST):
        raise BadCall(f"input must be 1 to {MOST} texts, none of them empty", field="input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise BadCall("encoding_format must be float or base64", field="encoding_format")
    size = body.get("dimensions")
    if size is not None and not (type(size) is int and 1 <= size <= 65_536):
        raise BadCall("dimensions must be a whole number of 1 or more", field="dimensions")
