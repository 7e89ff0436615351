"""Answers at a service: what others were answered, what is offered to them, and who asks for what.

An answer is offered once the lease that paid for it is accounted for: the service takes nothing that nobody paid for.
What is still to be offered follows from the journal, so that a crash loses none of it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Final

import apsw
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from corpusgen.corpus import Corpus, microseconds, moment
from corpusgen.errors import CorpusgenError, ServiceUnavailable
from corpusgen.journal import Journal
from corpusgen.records import Json, Usage
from corpusgen.stages.at_service.wire import Later, Misunderstood, Wire
from corpusgen.store.answers import Answer, Card, find_answer, known_answers, stored_request
from corpusgen.store.shared_cache import Shared

PORTION: Final = 256
"""Keys or answers of one question to a service."""
MOST_OFFERED: Final = 8 << 20
"""Bytes of answers that are offered at once; a longer one stays here."""
POLL_S: Final = 0.3
"""How often it is looked whether another machine has got the answer that is waited for."""
RESTS_S: Final = 1.0
"""After the service did not answer, it is not asked about answers and claims for so long."""

_log = logging.getLogger("corpusgen.service")


_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    request_key: _Key
    card: Card
    input_tokens: Annotated[int, Field(ge=0)]
    cached_input_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]
    reasoning_tokens: int | None
    cost_microusd: Annotated[int, Field(ge=0)]
    price_version: str
    provider_request_id: str | None
    sent: AwareDatetime
    received: AwareDatetime
    compute_us: int | None
    body: str


class _Found(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    answers: list[_Told]
    left_off: list[_Key]


class _Claimed(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    claimed: list[_Key]
    busy: list[_Key]
    answered: list[_Key]


@dataclass(kw_only=True)
class ServiceAnswers:
    """The answers a service has, beside the shared cache of this machine."""

    wire: Wire
    _rests_until_s: float = 0.0

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Shared]:
        """The answers there are; none from a service that does not answer, whose leases will tell of it."""
        wanted, found = iter(sorted(keys)), dict[bytes, Shared]()
        while (portion := list(islice(wanted, PORTION))) and time.monotonic() >= self._rests_until_s:
            try:
                found |= await self._find(portion)
            except (ServiceUnavailable, Later) as error:
                self._rests_until_s = time.monotonic() + RESTS_S
                _log.warning("known answers were not looked up: %s", error)
        return found

    def keep(self, answer: Answer, card: Card) -> None:
        """Nothing now: it is offered when the lease that paid for it is accounted for."""

    async def _find(self, keys: Sequence[bytes]) -> dict[bytes, Shared]:
        found: dict[bytes, Shared] = {}
        left = set(keys)
        while left:
            heard = await self.wire.post("/api/v1/answers/find", {"keys": [key.hex() for key in left]})
            try:
                told = _Found.model_validate_json(heard.raw)
            except ValidationError as error:
                raise ServiceUnavailable(f"{self.wire.url}: its answers cannot be read: {error.errors()[0]}") from error
            found |= {shared.answer.request_key: shared for shared in map(_shared, told.answers) if shared is not None}
            later = {bytes.fromhex(key) for key in told.left_off} & left
            left = later - found.keys() if len(later) < len(left) else set()
        return {key: shared for key, shared in found.items() if key in keys}


def _shared(told: _Told) -> Shared | None:
    try:
        key, body = bytes.fromhex(told.request_key), base64.b64decode(told.body, validate=True)
    except binascii.Error:
        return None
    usage = Usage(
        input_tokens=told.input_tokens,
        cached_input_tokens=told.cached_input_tokens,
        output_tokens=told.output_tokens,
        reasoning_tokens=told.reasoning_tokens,
    )
    answer = Answer(
        request_key=key,
        card_id=told.card.card_id,
        usage=usage,
        cost_microusd=told.cost_microusd,
        price_version=told.price_version,
        provider_request_id=told.provider_request_id,
        sent_us=microseconds(told.sent),
        received_us=microseconds(told.received),
        compute_us=told.compute_us,
        body=body,
    )
    return Shared(answer=answer, card=told.card)


# --- offering ---------------------------------------------------------------------------------------------------------


async def offer(wire: Wire, journal: Journal, borrowed_id: int) -> list[bytes]:
    """Hand over what was answered under a lease that is accounted for; the keys. Raises ServiceUnavailable."""
    keys = [row[0] for row in journal.query(_PAID, (borrowed_id,))]
    for portion in _portions(_offers(journal.reader, keys)):
        try:
            heard = await wire.post("/api/v1/answers", {"answers": portion})
        except Misunderstood as error:  # and so it would be the next time
            _log.warning("answers stay here: %s", error)
            continue
        for told in heard.fields.get("answers", ()) if isinstance(heard.fields, dict) else ():
            if not told.get("kept"):
                _log.warning("%s does not keep an answer: %s", wire.url, str(told.get("why"))[:300])
    await journal.run(
        lambda transaction: transaction.execute(
            "update borrowed set offered_us = ? where borrowed_id = ?", (transaction.now_us, borrowed_id)
        ).close()
    )
    return keys


_PAID: Final = (
    "select a.request_key from borrowed_calls b join calls c using (call_id) join answers a on a.call_id = c.call_id"
    " where b.borrowed_id = ? and c.state = 'settled' order by c.call_id"
)


def _offers(reader: apsw.Connection, keys: Iterable[bytes]) -> Iterator[dict[str, Json]]:
    for key in keys:
        answer = find_answer(reader, key)
        if answer is not None and len(answer.body) <= MOST_OFFERED:
            yield _offered(reader, answer)


def _offered(reader: apsw.Connection, answer: Answer) -> dict[str, Json]:
    text = reader.execute("select card from cards where card_id = ?", (answer.card_id,)).get
    return {
        "request_key": answer.request_key.hex(),
        "request": stored_request(reader, answer.request_key),
        "card": orjson.loads(str(text)),
        "input_tokens": answer.usage.input_tokens,
        "cached_input_tokens": answer.usage.cached_input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "reasoning_tokens": answer.usage.reasoning_tokens,
        "cost_microusd": answer.cost_microusd,
        "price_version": answer.price_version,
        "provider_request_id": answer.provider_request_id,
        "sent": moment(answer.sent_us).isoformat(),
        "received": moment(answer.received_us).isoformat(),
        "compute_us": answer.compute_us,
        "body": base64.b64encode(answer.body).decode(),
    }


def _portions(offers: Iterator[dict[str, Json]]) -> Iterator[list[dict[str, Json]]]:
    portion: list[dict[str, Json]] = []
    size = 0
    for one in offers:
        length = len(str(one["body"])) + 4096
        if portion and (size + length > 2 * MOST_OFFERED or len(portion) == PORTION):
            yield portion
            portion, size = [], 0
        portion.append(one)
        size += length
    if portion:
        yield portion


# --- claims -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ServiceClaims:
    """What this process is asking for, told to the service; those who wait at once are told of together."""

    wire: Wire
    corpus: Corpus
    holder: str
    held: dict[bytes, float] = field(default_factory=dict)
    """What is claimed, and since when or when it was last renewed."""
    _waiting: dict[bytes, asyncio.Future[bool | None]] = field(default_factory=dict)
    _sending: asyncio.Task[None] | None = None
    _rests_until_s: float = 0.0

    async def mine(self, key: bytes) -> bool:
        """As Claims says. What cannot be claimed because the service does not answer is asked for without."""
        while True:
            found = await self._standing(key)
            if found is not None:
                return found
            await asyncio.sleep(POLL_S)

    async def _standing(self, key: bytes) -> bool | None:
        """True for ours, False for answered, None for somebody else's."""
        if time.monotonic() < self._rests_until_s:
            return True
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await asyncio.shield(future)

    async def _send(self) -> None:
        while self._waiting:
            keys = list(islice(self._waiting, PORTION))
            futures = {key: self._waiting.pop(key) for key in keys}
            try:
                standing = await self._ask(keys)
            except (ServiceUnavailable, Later) as error:
                self._rests_until_s = time.monotonic() + RESTS_S
                _log.warning("what is being asked for was not told: %s", error)
                standing = {}
            except CorpusgenError as error:
                for future in futures.values():
                    future.set_exception(error)
                    future.exception()  # who waited may have left
                continue
            for key, future in futures.items():
                future.set_result(standing.get(key, True))

    async def _ask(self, keys: Sequence[bytes]) -> dict[bytes, bool | None]:
        wish = {"keys": [key.hex() for key in keys], "seconds": self.wire.address.claim_s, "holder": self.holder}
        heard = await self.wire.post("/api/v1/claims", wish)
        try:
            told = _Claimed.model_validate_json(heard.raw)
        except ValidationError as error:
            raise ServiceUnavailable(f"{self.wire.url}: its claims cannot be read: {error.errors()[0]}") from error
        now_s = time.monotonic()
        self.held |= {bytes.fromhex(key): now_s for key in told.claimed}
        return {bytes.fromhex(key): False for key in told.answered} | {bytes.fromhex(key): None for key in told.busy}

    async def tend(self) -> None:
        """Claim for longer what is still asked for, and let go of what has failed. Raises ServiceUnavailable."""
        idle = [key for key in self.held if key not in self.corpus.flights]
        answered = known_answers(self.corpus.journal.reader, idle)
        await self.let_go([key for key in idle if key not in answered])
        old_s = time.monotonic() - self.wire.address.claim_s / 3
        due = [key for key, since_s in self.held.items() if since_s <= old_s]
        for start in range(0, len(due), PORTION):
            await self._ask(due[start : start + PORTION])

    async def let_go(self, keys: Iterable[bytes]) -> None:
        """Let others ask for these. Raises ServiceUnavailable."""
        held = [key for key in keys if self.held.pop(key, None) is not None]
        for start in range(0, len(held), PORTION):
            named = [key.hex() for key in held[start : start + PORTION]]
            await self.wire.post("/api/v1/claims/release", {"keys": named, "holder": self.holder})

    async def aclose(self) -> None:
        """Let go of everything, as far as the service can be told."""
        if self._sending is not None:
            await asyncio.wait([self._sending])
        with suppress(CorpusgenError):
            await self.let_go(list(self.held))
