"""Answers passed on to other machines, and taken from them as far as they can be checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import apsw

from corpusgen.assemble import request_of
from corpusgen.budget.lending import ROLE
from corpusgen.corpus import Corpus, microseconds, moment
from corpusgen.errors import InvalidAnswer
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.records import Json, Reply, Request, Usage, canonical_json
from corpusgen.serve.api.models import AnswerOffered, AnswerTold, CardTaken, Offer
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import Configured
from corpusgen.serve.rooms import RoomKey, task_of, use_text
from corpusgen.stages.erasure.erasures import Tombstones
from corpusgen.stages.opening import card_of
from corpusgen.stages.terms.deciding import decision_for, with_terms_of
from corpusgen.store.answers import Answer, Card, find_answer, store_answer, store_card
from corpusgen.teachers.reading import read_choices
from corpusgen.teachers.registry import open_teacher
from corpusgen.teachers.teacher import Teacher

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


@dataclass(kw_only=True)
class Cards:
    """The cards of the service's own teachers, under its own terms: no offer says who answered, or under which."""

    corpus: Corpus
    config: Configured
    _teachers: dict[int, Teacher] = field(default_factory=dict)
    _made: dict[int, Card] = field(default_factory=dict)

    def of(self, teacher: str) -> Iterator[Card]:
        """The cards of the configured teachers of that name."""
        for at, offer in enumerate(self.config.spec.teachers):
            if offer.name == teacher:
                yield self._card(at)

    def _card(self, at: int) -> Card:
        if at not in self._made:
            use = use_text(self.config.spec.intended_use.model_dump(mode="json"))
            task = task_of(self.corpus, self.config, RoomKey(at=at, task=self.config.spec.task, use=use, run=""))
            teacher = self._teachers[at] = open_teacher(
                task.teacher, folder=task.located.file.parent, clock=self.corpus.clock, sending=False
            )
            task = with_terms_of(self.corpus, task)
            decision = decision_for(self.corpus, task, teacher.card, self.corpus.clock().date())
            self._made[at] = card_of(teacher.card, decision)
        return self._made[at]

    async def aclose(self) -> None:
        """Let go of the teachers, none of whom was asked."""
        for teacher in self._teachers.values():
            await teacher.aclose()


def offer_answers(cards: Cards, offered: Sequence[AnswerOffered], caller: Caller) -> list[Offer]:
    """Keep answers that a borrower paid for under a lease of its own; says of each what became of it."""
    found = [_looked_at(cards, one, caller) for one in offered]
    keeping = [one for one in found if not isinstance(one, str)]
    if keeping:
        cards.corpus.journal.run_now(partial(_keep, every=keeping, caller=caller))
    whys = [one if isinstance(one, str) else "" for one in found]
    return [Offer(request_key=one.request_key, kept=not why, why=why) for one, why in zip(offered, whys, strict=True)]


def _looked_at(cards: Cards, one: AnswerOffered, caller: Caller) -> _Keeping | str:
    """What is to be kept, or why not. Whether it was paid for comes before anything of it is read."""
    paid = _paid(cards.corpus, one, caller)
    if isinstance(paid, str):
        return paid
    request, body = _request(one), _body(one)
    if request is None or body is None:
        return "the request's sha256 is not its key, or it is no request" if request is None else "body: is not base64"
    if why := next(_complaints(one, request, body), ""):
        return why
    if Tombstones.of(cards.corpus.journal).over_request(request.key) is not None:
        return "it was answered here and erased, and what was erased is not taken again"
    card = next((card for card in cards.of(one.card.teacher) if _is_of(card, one, request)), None)
    if card is None:
        return "the card is of no teacher of this service, or of another than the request"
    return _Keeping(one=one, request=request, card=card, body=body, call_id=paid)


def _paid(corpus: Corpus, one: AnswerOffered, caller: Caller) -> int | str:
    """The call that this token reported, or why there is none."""
    rows = corpus.journal.query(
        "select call_id, teacher, microusd, scopes from calls where request_key = ? and role = ? and state = 'settled'"
        " order by call_id desc limit 1",
        (bytes.fromhex(one.request_key), ROLE),
    )
    if not rows or f"token:{caller.token_id}" not in rows[0][3].split("\n"):
        return "no call for it was reported as settled under a lease of this token; return the lease first"
    call_id, teacher, microusd, _ = rows[0]
    if teacher != one.card.teacher or microusd != one.cost_microusd:
        return f"the call was reported for {teacher} at {microusd} micro-dollars"
    return int(call_id)


_WHO: Final = ("teacher", "provider", "model", "route", "host", "identity", "revision")


def _is_of(card: Card, one: AnswerOffered, request: Request) -> bool:
    """Whether it is of this teacher; the terms are ours to say."""
    same = all(getattr(card, name) == getattr(one.card, name) for name in _WHO)
    return same and (card.identity, card.model) == (request.teacher, request.model)


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


@dataclass(frozen=True, kw_only=True)
class _Keeping:
    """An answer that is to be kept."""

    one: AnswerOffered
    request: Request
    card: Card
    body: bytes
    call_id: int


def _keep(transaction: Transaction, every: Sequence[_Keeping], caller: Caller) -> None:
    """Keep answers, and note in the ledger whose word they are."""
    new = [one for one in every if not transaction.rows(_KNOWN, (one.request.key,))]  # the first answer stays
    for keeping in new:
        store_card(transaction, keeping.card)
        answer = _answer(keeping.one, keeping.request, keeping.card, keeping.body)
        store_answer(transaction, keeping.request, answer, keeping.call_id)
    if new:
        calls: list[Json] = [one.call_id for one in new]
        told: dict[str, Json] = {"act": "answers_taken", "by": caller.user, "token": caller.token_id, "calls": calls}
        note_event(transaction, "administered", told)


_KNOWN: Final = "select 1 from answers where request_key = ?"


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
