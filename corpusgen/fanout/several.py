"""Several answers to one call, each a record of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from corpusgen.errors import AnswersMissing, TeacherError, UsageOverrun
from corpusgen.fanout.answering import made_record, refused, row_of, second_request
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.calling import Got
from corpusgen.fanout.notes import note_failure, note_why, stage_of
from corpusgen.fanout.obtaining import obtain
from corpusgen.prompting.prompts import Prompt, asking_for
from corpusgen.records import Record, Request
from corpusgen.store.answers import RecordRow, store_record

Made = Callable[[Prompt, int, Record], Awaitable[None]]
"""Told of the record that the so-manieth answer of a prompt has become."""


@dataclass(kw_only=True)
class Several:
    """A prompt that asks for several answers in one call, each of which becomes a record of its own."""

    asker: Asker
    prompt: Prompt
    made: Made
    last: bool = True
    """Whether nobody else is asked for what this teacher refuses."""
    failed: dict[int, TeacherError] = field(default_factory=dict)
    """Why there is no record of an answer, by its number."""
    refused: dict[int, list[Got]] = field(default_factory=dict)
    """What was said where somebody else is to be asked, by its number."""
    left: set[int] = field(init=False)
    """The numbers of the answers that are neither records nor given up."""

    def __post_init__(self) -> None:
        self.left = set(range(self.prompt.count)) - self.prompt.known

    async def run(self) -> None:
        """Ask for all of them in one call, and in one more for those that did not come."""
        try:
            await self._ask_for_all()
        except TeacherError as error:
            note_failure(self.asker, error)
            self.fail(error)
        else:
            self.asker.standing.answered()

    def fail(self, error: TeacherError) -> None:
        """Give up what is left, for this reason."""
        self.failed |= dict.fromkeys(sorted(self.left), error)
        self.left.clear()

    async def _ask_for_all(self) -> None:
        asker, request, count = self.asker, self.prompt.request, self.prompt.count
        missing = await self._ask(request, range(count))
        if self.left.intersection(missing):
            further = asking_for(request, len(missing), request.sample_index + missing[0])
            if asker.elsewhere is not None:
                await asker.elsewhere.adopt({further.key: further})
            self._give_up(missing, await self._ask(further, missing))

    def _give_up(self, asked: Sequence[int], missing: Sequence[int]) -> None:
        lost = self.left.intersection(missing)
        if not lost:
            return
        came, count, name = self.prompt.count - len(asked), self.prompt.count, self.asker.teacher.card.name
        error = AnswersMissing(
            f"{name} gave {came} of {count} answers to one call, and {len(asked) - len(missing)} of the {len(asked)}"
            " others when asked once more; asking.samples_per_call: 1 asks for each by itself, as another run"
        )
        self.failed |= dict.fromkeys(sorted(lost), error)
        self.left -= lost

    async def _ask(self, request: Request, places: Sequence[int]) -> list[int]:
        """Have the answers to one call become records; gives back which of these places it gave none for."""

        def whole(got: Got) -> tuple[RecordRow, ...]:
            placed = self._placed(got, places)
            return tuple(self._row(one, at) for at, one in placed.items() if self._is_whole(one, at))

        got, rows = await obtain(self.asker, self.prompt, request, whole)
        if got.completion.surplus:
            await self._tell_surplus(got)
        made = {row.record_id: row for row in rows}
        placed = self._placed(got, places)
        for at, one in placed.items():
            if (row := made.get(self.prompt.record_ids[at])) is not None:
                await self._made(one, row, at)
        for at, one in placed.items():
            if at in self.left and self._is_passed_on(one):
                self._pass_on(at, one)
            elif at in self.left:
                await self._mend(one, at)
        given = {places[choice.choice_index] for choice in got.choices or (got.completion,)}
        return [at for at in places if at not in given]

    def _placed(self, got: Got, places: Sequence[int]) -> dict[int, Got]:
        """Each answer of a call that is not a record yet, by the number it is to have."""
        if not got.choices:  # one was asked for
            return {at: got for at in places if at in self.left}
        among = len(got.choices)
        return {
            places[choice.choice_index]: replace(got, completion=choice, share=(at, among))
            for at, choice in enumerate(got.choices)
            if places[choice.choice_index] in self.left
        }

    def _row(self, got: Got, at: int) -> RecordRow:
        return row_of(self.asker, self.prompt, got.request, (), got, at)

    def _is_whole(self, got: Got, at: int) -> bool:
        return not self._is_passed_on(got) and self._again(got, at) is None

    def _is_passed_on(self, got: Got) -> bool:
        return not self.last and refused(got.completion)

    def _pass_on(self, at: int, *said: Got) -> None:
        self.refused[at] = list(said)
        self.left.discard(at)

    def _again(self, got: Got, at: int) -> Request | None:
        """What is to be asked next where an answer does not fit its schema."""
        if got.request.schema is None:
            return None
        alone = asking_for(got.request, 1, self.prompt.request.sample_index + at)
        return second_request(self.asker, alone, got.completion, got.reading)

    async def _mend(self, got: Got, at: int) -> None:
        """Ask once more for an answer that does not fit; its neighbours are not touched by how that ends."""
        asker, prompt, again = self.asker, self.prompt, self._again(got, at)
        assert again is not None
        if asker.standing.out is not None:  # no more is asked of it: what it said is all there is
            row = self._row(got, at)
            await asker.corpus.journal.run(lambda transaction: store_record(transaction, row))
            await self._made(got, row, at)
            return
        if asker.elsewhere is not None:
            await asker.elsewhere.adopt({again.key: again})

        def whole(mended: Got) -> tuple[RecordRow, ...]:
            return () if self._is_passed_on(mended) else (row_of(asker, prompt, got.request, (got,), mended, at),)

        try:
            mended, rows = await obtain(asker, prompt, again, whole)
        except UsageOverrun:
            raise
        except TeacherError as error:
            note_failure(asker, error)
            self.failed[at] = error
            self.left.discard(at)
        else:
            await self._made(mended, rows[0], at) if rows else self._pass_on(at, got, mended)

    async def _made(self, got: Got, row: RecordRow, at: int) -> None:
        self.left.discard(at)
        await self.made(self.prompt, at, await made_record(self.asker, self.prompt, got, row, at))

    async def _tell_surplus(self, got: Got) -> None:
        asked = len(got.choices)
        said = f"gave {asked + got.completion.surplus} answers where {asked} were asked for; the first are kept"
        detail = f"{self.asker.teacher.card.name} {said}"
        await note_why(self.asker, self.prompt, stage_of("surplus", self.prompt), "more answers than asked for", detail)
