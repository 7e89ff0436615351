"""One question from outside, answered as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from corpusgen.errors import AnswerBarred, AnswersMissing, NotSent, TeacherError, UsageOverrun
from corpusgen.fanout.answering import made_record, row_of
from corpusgen.fanout.asker import Asker, Ended
from corpusgen.fanout.calling import Got
from corpusgen.fanout.notes import card_of, note_drop, note_reuses, place_of, undrop
from corpusgen.fanout.obtaining import obtain
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Completion, Json, Request
from corpusgen.store.answers import Answer, RecordRow, known_answers, runs_of_records


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a teacher said to one question, and the records it is kept as."""

    answer: Answer
    completions: tuple[Completion, ...]
    record_ids: tuple[str, ...]
    """In the order of the completions."""
    bought: bool
    """Whether it was paid for now; else it was known, or somebody else was asking the same."""
    adopted: bool = False
    """Whether it came from another corpus just now."""


async def ask_one(
    asker: Asker, prompt: Prompt, *, told: Mapping[str, Json] | None = None, recorded: bool = True
) -> Said:
    """The answer to one question as it came: known, under way for somebody else, or bought now.

    Nothing is asked a second time to mend what came, and each of several answers is a record of its own. ``told`` is
    kept with the records; without ``recorded`` there are none, only the answer and what it cost. Raises what
    the call raised; a TeacherError is noted as a drop, as in a run. Where the asker's hold has ended, nothing more is
    sent.
    """
    adopted = await _adopted(asker, prompt.request)
    try:
        said = await _said(asker, prompt, told or {}, recorded)
    except UsageOverrun as error:  # booked in full; what was answered is kept, and paid for
        if not known_answers(asker.corpus.journal.reader, [prompt.request.key]):
            await note_drop(asker, prompt, error)
            raise
        said = replace(await _said(asker, prompt, told or {}, recorded), bought=True)
    except Ended:
        raise NotSent("it was not sent in time, and nothing is owed") from None
    except TeacherError as error:
        await note_drop(asker, prompt, error)
        raise
    return replace(said, adopted=True) if adopted else said


async def _adopted(asker: Asker, request: Request) -> bool:
    if asker.elsewhere is None or request.key in asker.corpus.flights:
        return False
    if known_answers(asker.corpus.journal.reader, [request.key]):
        return False
    return bool(await asker.elsewhere.adopt({request.key: request}))


async def _said(asker: Asker, prompt: Prompt, told: Mapping[str, Json], recorded: bool) -> Said:
    request, reader, reused = prompt.request, asker.corpus.journal.reader, list[str]()

    def lacking(got: Got) -> tuple[RecordRow, ...]:
        if got.used is None:
            _refuse_barred(asker, got.answer)
        rows = [_row_of_one(asker, prompt, one, told) for one in _each(got)] if recorded else []
        if got.used is not None:
            return tuple(rows)
        runs = runs_of_records(reader, [row.record_id for row in rows])
        reused.extend(name for name, run_id in runs.items() if run_id != asker.facts.run_id)
        return tuple(row for row in rows if row.record_id not in runs)

    got, rows = await obtain(asker, prompt, request, lacking)
    await note_reuses(asker, reused)
    new = {row.record_id: row for row in rows}
    for one in _each(got):
        at = one.completion.choice_index
        if (row := new.get(prompt.record_ids[at])) is not None:
            await made_record(asker, prompt, one, row, at)
            await _undrop_if_noted(asker, place_of(prompt, at))
    completions = got.choices or (got.completion,)
    if rows and len(completions) < prompt.count:
        await _note_left_out(asker, prompt, {one.choice_index for one in completions})
    names = tuple(prompt.record_ids[one.choice_index] for one in completions)
    return Said(answer=got.answer, completions=completions, record_ids=names, bought=got.used is not None)


def _refuse_barred(asker: Asker, answer: Answer) -> None:
    """Raise AnswerBarred for a known answer whose own terms do not allow what this run is for."""
    card = card_of(asker, answer.card_id)
    if card.terms_set_id != asker.card.terms_set_id and (why := asker.barred(card)) is not None:
        raise AnswerBarred(why)


def _each(got: Got) -> list[Got]:
    """Each of the answers to one call, with its part of the cost."""
    if not got.choices:
        return [got]
    among = len(got.choices)
    return [replace(got, completion=choice, share=(at, among)) for at, choice in enumerate(got.choices)]


def _row_of_one(asker: Asker, prompt: Prompt, got: Got, told: Mapping[str, Json]) -> RecordRow:
    row = row_of(asker, prompt, prompt.request, (), got, got.completion.choice_index)
    return replace(row, item={**row.item, **told}) if told else row


async def _undrop_if_noted(asker: Asker, place: tuple[str, str]) -> None:
    sql = "select exists(select 1 from drops where run_id = ? and stage = ? and item_id = ?)"
    if asker.corpus.journal.query(sql, (asker.facts.run_id, *place))[0][0]:
        await undrop(asker, place)


async def _note_left_out(asker: Asker, prompt: Prompt, given: set[int]) -> None:
    name = asker.teacher.card.name
    error = AnswersMissing(f"{name} gave {len(given)} of {prompt.count} answers to one call; no more were asked for")
    for at in sorted(set(range(prompt.count)) - given):
        await note_drop(asker, prompt, error, at)
