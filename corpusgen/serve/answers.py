"""Answers passed on to other machines, and taken from them as far as they can be checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from corpusgen.assemble import request_of
from corpusgen.budget.lending import ROLE
from corpusgen.corpus import Corpus, microseconds, moment
from corpusgen.errors import InvalidAnswer
from corpusgen.journal import Transaction
from corpusgen.records import Json, Reply, Request, Usage, canonical_json
from corpusgen.serve.api.models import AnswerOffered, AnswerTold, CardTaken, Offer
from corpusgen.serve.callers import Caller
from corpusgen.store.answers import Answer, Card, find_answer, store_answer, store_card
from corpusgen.teachers.reading import read_choices

MOST_TOLD: Final = 24 << 20
"""Bytes of replies in one answer of the API."""
_REQUEST: Final = frozenset(("teacher", "model", "api", "messages", "parameters", "schema", "tools", "sample_index"))


def find_answers(corpus: Corpus, keys: Sequence[str]) -> tuple[list[AnswerTold], list[str]]:
    """The known answers to requests, and the keys of those that would have made it too large."""
    found: list[AnswerTold] = []
    left_off: list[str] = []
    size, reader = 0, corpus.journal.reader
    for key in dict.fromkeys(keys):
        answer = find_answer(reader, bytes.fromhex(key))
        if answer is None:
            continue
        if found and size + len(answer.body) > MOST_TOLD:
            left_off.append(key)
            continue
        size += len(answer.body)
        found.append(_told(reader, answer))
    return found, left_off


def _told(reader: apsw.Connection, answer: Answer) -> AnswerTold:
    text = reader.execute("select card from cards where card_id = ?", (answer.card_id,)).get
    card = Card.from_json(str(text))
    fields = {name: getattr(card, name) for name in CardTaken.model_fields}
    return AnswerTold(
        request_key=answer.request_key.hex(),
        card=CardTaken(**{**fields, "terms_ids": list(card.terms_ids)}),
        input_tokens=answer.usage.input_tokens,
        cached_input_tokens=answer.usage.cached_input_tokens,
        output_tokens=answer.usage.output_tokens,
        reasoning_tokens=answer.usage.reasoning_tokens,
        cost_microusd=answer.cost_microusd,
        price_version=answer.price_version,
        provider_request_id=answer.provider_request_id,
        sent=moment(answer.sent_us),
        received=moment(answer.received_us),
        compute_us=answer.compute_us,
        body=base64.b64encode(answer.body).decode(),
    )


def offer_answers(corpus: Corpus, offered: Sequence[AnswerOffered], caller: Caller) -> list[Offer]:
    """Keep answers that a borrower paid for under a lease of its own; says of each what became of it."""
    return [_offered(corpus, one, caller) for one in offered]


def _offered(corpus: Corpus, one: AnswerOffered, caller: Caller) -> Offer:
    request, body = _request(one), _body(one)
    if request is None or body is None:
        why = "the request's sha256 is not its key, or it is no request" if request is None else "body: is not base64"
        return Offer(request_key=one.request_key, kept=False, why=why)
    if why := next(_complaints(one, request, body), ""):
        return Offer(request_key=one.request_key, kept=False, why=why)
    why = corpus.journal.run_now(lambda transaction: _keep(transaction, one, request, body, caller))
    return Offer(request_key=one.request_key, kept=not why, why=why)


def _request(one: AnswerOffered) -> Request | None:
    """The request, if it is one, in the form whose sha256 is its key."""
    if set(one.request) != _REQUEST or not _has_shape(one.request):
        return None
    if hashlib.sha256(canonical_json(one.request)).hexdigest() != one.request_key:
        return None
    request = request_of(one.request)
    return request if request.key.hex() == one.request_key else None


def _has_shape(fields: dict[str, Json]) -> bool:
    texts = all(isinstance(fields[name], str) for name in ("teacher", "model"))
    turns = fields["messages"]
    shaped = isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) in (2, 3) and all(isinstance(part, str) for part in turn) for turn in turns
    )
    of_api = fields["api"] in ("chat", "completion", "responses", "messages")
    return texts and shaped and of_api and isinstance(fields["parameters"], dict) and _is_int(fields["sample_index"])


def _is_int(value: Any) -> bool:
    return type(value) is int and value >= 0


def _body(one: AnswerOffered) -> bytes | None:
    try:
        return base64.b64decode(one.body, validate=True)
    except (binascii.Error, ValueError):
        return None


def _complaints(one: AnswerOffered, request: Request, body: bytes) -> Iterator[str]:
    card = one.card
    if (card.identity, card.model) != (request.teacher, request.model):
        yield "the card is of another teacher than the request"
    if one.received < one.sent:
        yield "received: is before it was sent"
    if one.sent.tzinfo is None or one.received.tzinfo is None:
        yield "sent, received: need a time zone, such as 2026-01-31T12:00:00Z"
    reply = Reply(body=body, request_id=None, sent_time=one.sent, received_time=one.received)
    try:
        read_choices(request, reply)
    except InvalidAnswer as error:
        yield f"body: is no answer that can be read: {error!s:.200}"
    except (TypeError, ValueError) as error:  # parameters that no request of ours has
        yield f"request: {error!s:.200}"


def _keep(transaction: Transaction, one: AnswerOffered, request: Request, body: bytes, caller: Caller) -> str:
    """Why it is not kept; empty where it is, or was."""
    rows = transaction.rows(
        "select call_id, teacher, microusd, scopes from calls where request_key = ? and role = ? and state = 'settled'"
        " order by call_id desc limit 1",
        (request.key, ROLE),
    )
    mine = f"token:{caller.token_id}"
    if not rows or mine not in rows[0][3].split("\n"):
        return "no call for it was reported as settled under a lease of this token; return the lease first"
    call_id, teacher, microusd, _ = rows[0]
    if teacher != one.card.teacher or microusd != one.cost_microusd:
        return f"the call was reported for {teacher} at {microusd} micro-dollars"
    card = Card(**{**one.card.model_dump(), "terms_ids": tuple(one.card.terms_ids)})
    store_card(transaction, card)
    store_answer(transaction, request, _answer(one, request, card, body), call_id)
    return ""


def _answer(one: AnswerOffered, request: Request, card: Card, body: bytes) -> Answer:
    return Answer(
        request_key=request.key,
        card_id=card.card_id,
        usage=Usage(
            input_tokens=one.input_tokens,
            output_tokens=one.output_tokens,
            cached_input_tokens=one.cached_input_tokens,
            reasoning_tokens=one.reasoning_tokens,
        ),
        cost_microusd=one.cost_microusd,
        price_version=one.price_version,
        provider_request_id=one.provider_request_id,
        sent_us=microseconds(one.sent),
        received_us=microseconds(one.received),
        compute_us=one.compute_us,
        body=body,
    )
