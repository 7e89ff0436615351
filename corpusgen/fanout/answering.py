"""One prompt and one teacher: the answer becomes a record, asked once more where that may mend it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from corpusgen.assemble import record_of
from corpusgen.corpus import Corpus
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.calling import Got
from corpusgen.fanout.notes import card_of, note_why, stage_of
from corpusgen.fanout.obtaining import obtain
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Completion, Record, Request
from corpusgen.store.answers import RecordRow
from corpusgen.teachers.labels import LabelReading
from corpusgen.teachers.structured import repair_of

if TYPE_CHECKING:
    from corpusgen.store.fresh import Fresh


WIDER = 10
"""How many times more runners-up are asked for when a label was not among them."""


async def answer_of(asker: Asker, prompt: Prompt, request: Request, earlier: list[Got], *, last: bool) -> Record | None:
    """The record that one teacher's answer makes, asked once more where that may mend it; ``earlier`` grows.

    None where it refused and is not the last to be asked.
    """
    again: Request | None = None

    def unless_lacking(got: Got) -> tuple[RecordRow, ...]:
        nonlocal again
        again = None if got.request is not request else second_request(asker, request, got.completion, got.reading)
        if again is not None or (refused(got.completion) and not last):
            return ()
        return (row_of(asker, prompt, request, earlier, got),)

    got, rows = await obtain(asker, prompt, request, unless_lacking)
    if not rows and again is not None and asker.standing.out is None:
        earlier.append(got)
        if asker.elsewhere is not None:
            await asker.elsewhere.adopt({again.key: again})
        got, rows = await obtain(asker, prompt, again, unless_lacking)
    if not rows and last:  # no more is asked of it meanwhile: what it said is all there is
        got, rows = await obtain(asker, prompt, request, lambda got: (row_of(asker, prompt, request, earlier, got),))
    if not rows:
        earlier.append(got)
        return None
    return await made_record(asker, prompt, got, rows[0])


async def made_record(asker: Asker, prompt: Prompt, got: Got, row: RecordRow, at: int = 0) -> Record:
    """The record of an answer, what is wrong with it noted."""
    card = card_of(asker, got.answer.card_id)
    record = record_of(asker.facts, card, row, got.answer, got.request, got.completion, got.reading)
    for verdict in record.verdicts:
        if not verdict.kept:
            await note_why(asker, prompt, stage_of(verdict.check, prompt, at), "does not fit", verdict.reason or "")
    # Of a schema and of several answers more goes into the record than is certain to be the same when it is read again.
    if got.request.schema is None and got.share is None:
        _fresh_of()(asker.corpus).add(row, record, asker.facts)
    return record


@cache
def _fresh_of() -> Callable[[Corpus], Fresh]:
    from corpusgen.store.fresh import fresh_of  # with Arrow, which an answered run needs nothing of

    return fresh_of


def refused(completion: Completion) -> bool:
    """Whether a teacher answered only that it will not."""
    return completion.finish_reason in ("refusal", "content_filter")


def second_request(
    asker: Asker, request: Request, completion: Completion, reading: LabelReading | None
) -> Request | None:
    """What is to be asked next where an answer lacks a label or does not fit its schema; None where it is whole."""
    if lacks_label(completion, reading):
        return wider_request(asker, request)
    return None if request.schema is None else repair_of(request, completion)


def lacks_label(completion: Completion, reading: LabelReading | None) -> bool:
    """Whether the runners-up of an answer leave a label out."""
    # Where no log-probabilities came at all, asking for more of them brings none either.
    return completion.logprobs is not None and reading is not None and None in reading.logprobs


def wider_request(asker: Asker, request: Request) -> Request | None:
    """The same question with more runners-up, where the teacher gives more."""
    asked = request.parameters.get("top_logprobs")
    most = asker.teacher.card.capabilities.top_logprobs
    if not isinstance(asked, int) or asked >= most:
        return None
    return replace(request, parameters={**request.parameters, "top_logprobs": min(most, asked * WIDER)})


def row_of(asker: Asker, prompt: Prompt, request: Request, earlier: Sequence[Got], got: Got, at: int = 0) -> RecordRow:
    """Which item an answer belongs to, and what it took to get it; ``earlier`` are the answers before it."""
    asked, key = prompt.item, got.request.key
    item: dict[str, Any] = {
        "input": asked.input,
        "source_ids": list(asked.source_ids),
        "sample_index": prompt.request.sample_index + at,
    }
    if asked.parent_ids:
        item["parent_ids"] = list(asked.parent_ids)
    if got.share is not None:
        item |= {"choice": got.completion.choice_index, "share": got.share}
    if earlier:
        paid = [0 if _of_another_run(asker, one) else one.cost_microusd for one in earlier]
        item["first_cost_microusd"] = sum(paid)
    if len(earlier) > 1:
        item["between"] = [one.request.key.hex() for one in earlier[1:]]
    if len(got.request.messages) > len(request.messages):
        item["turns"] = len(request.messages)
    if asker.role != "primary":
        item["role"] = asker.role
    return RecordRow(
        record_id=prompt.record_ids[at],
        run_id=asker.facts.run_id,
        dataset=asker.facts.task,
        split=asked.split,
        ordinal=prompt.ordinal + at,
        item_id=asked.item_id,
        request_key=key,
        first_key=earlier[0].request.key if earlier else key,
        from_cache=_of_another_run(asker, got),
        item=item,
    )


def _of_another_run(asker: Asker, got: Got) -> bool:
    if got.used is not None:
        return False
    rows = asker.corpus.journal.query(
        "select c.run_id from answers a left join calls c using (call_id) where a.request_key = ?", (got.request.key,)
    )
    return bool(rows) and rows[0][0] != asker.facts.run_id  # another corpus's answer has no call here
