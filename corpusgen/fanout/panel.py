"""Several teachers: who is asked for a prompt, and who is asked next where one would or could not answer."""

from __future__ import annotations

from collections.abc import Sequence

from corpusgen.errors import TeacherError, UsageOverrun, Withheld
from corpusgen.fanout.answering import answer_of
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.calling import Got
from corpusgen.fanout.notes import note_failure, note_passed_on
from corpusgen.fanout.several import Several
from corpusgen.prompting.prompts import Prompt, part_of_prompt
from corpusgen.records import Record, Request


async def answer_of_panel(asker: Asker, prompt: Prompt) -> Record:
    """The record of one prompt by the first of its teachers that answers; what the others said or cost is kept."""
    return await _answer_by(asker, prompt, _chain(asker, prompt), [])


async def _answer_by(asker: Asker, prompt: Prompt, chain: Sequence[Asker], earlier: list[Got]) -> Record:
    for one in chain:
        last = one is chain[-1]
        request = prompt.request if _is_first(one, prompt) else _request_of(one, prompt)
        try:
            record = await _answer_of_one(one, prompt, request, earlier, last=last)
        except Withheld:
            raise  # nobody else may see it either
        except TeacherError as error:
            if not asker.hold.ended:
                note_failure(one, error)
            if last or asker.hold.ended:
                raise
            await note_passed_on(one, prompt, type(error).__name__, str(error))
            continue
        one.standing.answered()
        if record is not None:
            return record
        said = earlier[-1].completion
        await note_passed_on(one, prompt, said.finish_reason, said.refusal or said.text)
    raise AssertionError("unreachable: the last one answers or raises")  # pragma: no cover


async def several_of_panel(asker: Asker, several: Several) -> None:
    """Ask for all answers of a prompt in one call, and the next teachers for each that this brings none of."""
    prompt = several.prompt
    try:
        chain = _chain(asker, prompt)
    except TeacherError as error:
        several.fail(error)
        return
    if _is_first(chain[0], prompt):
        several.asker, *chain = chain
        several.last = not chain
        await _in_its_turn(several)
    else:  # who would be first is away
        several.refused |= {at: [] for at in sorted(several.left)}
        several.left.clear()
    for at in sorted({*several.failed, *several.refused}) if chain else ():
        await _passed_on(asker, several, at, chain)


async def _in_its_turn(several: Several) -> None:
    """As ``_answer_of_one``: an overrun is the end of this teacher's asking, not of what it has answered."""
    one = several.asker
    assert one.at_once is not None
    async with one.at_once:
        if one.standing.out is not None:  # since this prompt got into line
            several.fail(one.standing.out)
            return
        await several.run()
        if not several.last and any(isinstance(error, UsageOverrun) for error in several.failed.values()):
            several.left |= several.failed.keys()
            several.failed.clear()
            await several.run()


async def _passed_on(asker: Asker, several: Several, at: int, chain: Sequence[Asker]) -> None:
    """One of the answers of a prompt, asked of the next teachers by itself."""
    error, said = several.failed.get(at), several.refused.get(at, [])
    if isinstance(error, Withheld) or asker.hold.ended:
        return
    part = part_of_prompt(several.prompt, at)
    if error is not None:
        await note_passed_on(several.asker, part, type(error).__name__, str(error))
    elif said:
        last = said[-1].completion
        await note_passed_on(several.asker, part, last.finish_reason, last.refusal or last.text)
    several.failed.pop(at, None)
    try:
        record = await _answer_by(asker, part, chain, said)
    except TeacherError as why:
        several.failed[at] = why
    else:
        await several.made(several.prompt, at, record)


def _chain(asker: Asker, prompt: Prompt) -> list[Asker]:
    """Who is asked for a prompt, one after the other; who is away is passed over, unless all are."""
    now = asker.corpus.clock()
    first = asker.seat(prompt.request)
    whole = [first, *(asker.panel[at] for at in first.after)]
    there = [one for one in whole if one.standing.out is None]
    if not there:
        assert whole[-1].standing.out is not None
        raise whole[-1].standing.out
    return [one for one in there if not one.standing.away(now)] or there


def somebody_left(asker: Asker, prompt: Prompt) -> bool:
    """Whether there is still a teacher that can be asked for such a prompt."""
    if not asker.panel:
        return False
    first, now = asker.seat(prompt.request), asker.corpus.clock()
    return any(not one.standing.away(now) for one in (first, *(asker.panel[at] for at in first.after)))


def _is_first(one: Asker, prompt: Prompt) -> bool:
    card = one.teacher.card
    return (card.identity, card.model) == (prompt.request.teacher, prompt.request.model)


def _request_of(one: Asker, prompt: Prompt) -> Request:
    assert one.request_for is not None
    return one.request_for(prompt.item, prompt.request.sample_index)


async def _answer_of_one(
    one: Asker, prompt: Prompt, request: Request, earlier: list[Got], *, last: bool
) -> Record | None:
    """As ``answer_of``, in this teacher's turn; an overrun is the end of its asking, not of the answer."""
    assert one.at_once is not None
    if one.elsewhere is not None and not _is_first(one, prompt):
        await one.elsewhere.adopt({request.key: request})
    async with one.at_once:
        if one.standing.out is not None:  # since this prompt got into line
            raise one.standing.out
        try:
            return await answer_of(one, prompt, request, earlier, last=last)
        except UsageOverrun as error:
            one.standing.failed(error, one.corpus.clock())
            if last:
                raise
            return await answer_of(one, prompt, request, earlier, last=last)  # the answer is there, and is read again
