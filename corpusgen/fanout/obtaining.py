"""The answer to a request: known, under way for somebody else, or bought now, in several tries if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from corpusgen.assemble import read_labels, reply_of
from corpusgen.errors import InvalidAnswer, RateLimited, TeacherError
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.calling import AnsweredMeanwhile, Finish, Got, read_reply, try_once
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Request
from corpusgen.screen import withheld_aside
from corpusgen.store.answers import Answer, RecordRow, find_answer, store_record
from corpusgen.teachers.pacing import Pacer

MOST_TRIES = 50
MOST_UNREADABLE = 2
"""Each was perhaps paid for; a server that answers so twice will go on to."""


async def obtain(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[Got, tuple[RecordRow, ...]]:
    """The answer to a request (known, under way for somebody else, or bought now) and the record it completes."""
    corpus, key = asker.corpus, request.key
    while True:
        # Looked up with its neighbours a moment ago, unless it has been under way since.
        answer = None if key in corpus.unanswered else find_answer(corpus.journal.reader, key)
        if answer is not None:
            return await _known(asker, request, answer, finish)
        corpus.unanswered.discard(key)
        flight = corpus.flights.get(key)
        if flight is not None:
            await asyncio.wait([flight])
            continue
        corpus.flights[key] = flight = asyncio.get_running_loop().create_future()
        try:
            if (reason := await withheld_aside(request, asker.blocked)) is not None:
                raise reason
            if asker.elsewhere is not None and await asker.elsewhere.came(request):
                continue
            return await _buy(asker, prompt, request, finish)
        except AnsweredMeanwhile:
            continue
        finally:
            del corpus.flights[key]
            corpus.unanswered.discard(key)
            flight.set_result(None)


async def _known(asker: Asker, request: Request, answer: Answer, finish: Finish) -> tuple[Got, tuple[RecordRow, ...]]:
    completion, choices = read_reply(asker, request, reply_of(answer))
    reading = read_labels(asker.facts, completion)
    got = Got(request=request, answer=answer, completion=completion, reading=reading, used=None, choices=choices)
    rows = finish(got)
    if rows:
        await asker.corpus.journal.run(lambda transaction: _store_records(transaction, rows))
    return got, rows


def _store_records(transaction: Transaction, rows: Iterable[RecordRow]) -> None:
    for row in rows:
        store_record(transaction, row)


async def _buy(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[Got, tuple[RecordRow, ...]]:
    try:
        return await try_once(asker, prompt, request, finish, 1)
    except TeacherError as error:
        failure = error
    async for attempt in _retrying(asker):
        with attempt:
            number = attempt.retry_state.attempt_number
            if number == 1:
                raise failure  # the try above; most calls need no more, and retrying has its price
            return await try_once(asker, prompt, request, finish, number)
    raise AssertionError("unreachable: tenacity re-raises")  # pragma: no cover


def _retrying(asker: Asker) -> AsyncRetrying:
    def again(error: BaseException) -> bool:
        return isinstance(error, TeacherError) and error.transient and not asker.hold.ended

    return AsyncRetrying(
        stop=_Stop(attempts=asker.attempts, pacer=asker.pacer),
        retry=retry_if_exception(again),
        wait=_wait,
        sleep=asker.sleep,
        reraise=True,
    )


@dataclass(kw_only=True)
class _Stop:
    """Give up after so many failures; being told to slow down is not one, until the pacer sees no end of it.

    A refusal that may be billed is booked at its worst case each time; the pacer keeps those few, and the caps hold.
    """

    attempts: int
    pacer: Pacer
    failures: int = 0
    unreadable: int = 0

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        self.failures += not isinstance(error, RateLimited)
        self.unreadable += isinstance(error, InvalidAnswer)
        if self.unreadable >= MOST_UNREADABLE:
            return True
        return self.failures >= self.attempts or state.attempt_number >= MOST_TRIES or self.pacer.given_up


_backoff = wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    held_back = isinstance(error, RateLimited) or (isinstance(error, TeacherError) and bool(error.retry_after_s))
    return 0.0 if held_back else _backoff(state)  # the pacer holds everybody back for what was asked
