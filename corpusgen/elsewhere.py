"""Answers that other corpora paid for, taken into this one under the terms they were given on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corpusgen.assemble import completions_of, reply_of
from corpusgen.errors import InvalidAnswer
from corpusgen.journal import Journal, Transaction
from corpusgen.records import Request
from corpusgen.store.answers import Answer, Card, store_answer, store_card
from corpusgen.store.shared_cache import NO_CALL, Shared
from corpusgen.teachers.teacher import Teacher


class Source(Protocol):
    """Where others' answers are to be had, such as the shared cache."""

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Shared]:
        """The answers there are, by request key."""
        ...

    def keep(self, answer: Answer, card: Card) -> None:
        """Let others have an answer; returns at once."""
        ...


class Claims(Protocol):
    """Who asks what, among those who share answers."""

    async def mine(self, key: bytes) -> bool:
        """Waits while somebody else asks for it; False when it has an answer, True when it is to be asked for here."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Several sources, the first of which knows best."""

    each: Sequence[Source]

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Shared]:
        """The answers there are, by request key."""
        left, found = set(keys), dict[bytes, Shared]()
        for source in self.each:
            found |= await source.get_many(left) if left else {}
            left -= found.keys()
        return found

    def keep(self, answer: Answer, card: Card) -> None:
        """Let others have an answer; returns at once."""
        for source in self.each:
            source.keep(answer, card)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What others were answered, as one run may use it."""

    cache: Source
    usable: Callable[[Card], bool]
    """Whether today's policy lets this run use answers that were given under a card."""
    journal: Journal
    teacher: Teacher
    note: Callable[[Transaction, Collection[Card]], None] = lambda transaction, cards: None
    """Writes down what was decided about the terms that adopted answers were given on."""
    claims: Claims | None = None
    """Where it is said what is being asked for, so that no two of those who share answers ask for the same."""

    async def adopt(self, requests: Mapping[bytes, Request]) -> set[bytes]:
        """Put into the journal what others were answered to these requests, at the origin's cost; their keys."""
        if not requests:
            return set()
        found = await self.cache.get_many(requests)
        fit = [shared for key, shared in found.items() if self._fits(requests[key], shared)]

        def operation(transaction: Transaction) -> None:
            self.note(transaction, list(dict.fromkeys(shared.card for shared in fit)))
            for shared in fit:
                store_card(transaction, shared.card)
                store_answer(transaction, requests[shared.answer.request_key], shared.answer, NO_CALL)

        if fit:
            await self.journal.run(operation)
        return {shared.answer.request_key for shared in fit}

    async def came(self, request: Request) -> bool:
        """Whether somebody else's answer has come; if not, it is to be asked for here and by nobody else meanwhile."""
        if self.claims is None or await self.claims.mine(request.key):
            return False
        return bool(await self.adopt({request.key: request}))

    def offer(self, answer: Answer, card: Card) -> None:
        """Let other corpora have an answer that was paid for here; returns at once."""
        self.cache.keep(answer, card)

    def _fits(self, request: Request, shared: Shared) -> bool:
        """True for an answer of this very teacher that can be read and may be used."""
        if shared.card.identity != self.teacher.card.identity or not self.usable(shared.card):
            return False
        try:
            completions_of(self.teacher, request, reply_of(shared.answer))
        except InvalidAnswer:
            return False
        return True
