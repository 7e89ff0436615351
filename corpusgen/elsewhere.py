"""Answers that other corpora paid for, taken into this one under the terms they were given on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from corpusgen.assemble import completions_of, reply_of
from corpusgen.errors import InvalidAnswer
from corpusgen.journal import Journal, Transaction
from corpusgen.records import Request
from corpusgen.store.answers import Answer, Card, store_answer, store_card
from corpusgen.store.shared_cache import NO_CALL, Shared, SharedCache
from corpusgen.teachers.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """The shared cache as one run may use it."""

    cache: SharedCache
    usable: Callable[[Card], bool]
    """Whether today's policy lets this run use answers that were given under a card."""
    journal: Journal
    teacher: Teacher
    note: Callable[[Transaction, Collection[Card]], None] = lambda transaction, cards: None
    """Writes down what was decided about the terms that adopted answers were given on."""

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
