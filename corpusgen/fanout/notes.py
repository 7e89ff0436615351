"""What is noted beside the answers: drops, who was passed over, records of other runs, how a teacher does."""

from __future__ import annotations

from corpusgen.assemble import RunFacts
from corpusgen.errors import TeacherError
from corpusgen.fanout.asker import Asker
from corpusgen.prompting.prompts import Prompt
from corpusgen.standing import DOUBTFUL_STATUS
from corpusgen.store.answers import Card


def note_failure(asker: Asker, error: TeacherError) -> None:
    """Note how a teacher did; one that answered in an earlier try of this run has shown that it may be asked."""
    standing = asker.standing
    if error.status in DOUBTFUL_STATUS and not standing.has_answered:
        sql = "select exists(select 1 from calls where run_id = ? and teacher = ? and state = 'settled')"
        named = (asker.facts.run_id, asker.teacher.card.name)
        standing.has_answered = bool(asker.corpus.journal.query(sql, named)[0][0])
    standing.failed(error, asker.corpus.clock())


async def note_reuses(asker: Asker, record_ids: list[str]) -> None:
    """Remember that records another run has made are this one's too."""
    journal, run_id = asker.corpus.journal, asker.facts.run_id
    if not record_ids:
        return
    names = [bytes.fromhex(record_id) for record_id in record_ids]
    marks = ",".join("?" * len(names))
    sql = f"select record_id from reuses where run_id = ? and record_id in ({marks})"  # noqa: S608 - own text
    noted = {row[0] for row in journal.query(sql, (run_id, *names))}
    rows = [(run_id, name) for name in names if name not in noted]
    if rows:
        sql = "insert into reuses values(?, ?) on conflict do nothing"
        await journal.run(lambda transaction: transaction.connection.executemany(sql, rows).close())


def stage_of(name: str, prompt: Prompt, at: int = 0) -> str:
    """Where an answer was lost; each sample of an item after the first has its own number there."""
    sample = prompt.request.sample_index + at
    return f"{name}:{prompt.item.split}#{sample}" if sample else f"{name}:{prompt.item.split}"


def place_of(prompt: Prompt, at: int = 0) -> tuple[str, str]:
    """Where a prompt without an answer is noted: the stage, and the item."""
    return stage_of("ask", prompt, at), prompt.item.item_id


def noted_drops(asker: Asker) -> set[tuple[str, str]]:
    """The places of this run's prompts that have had no answer so far."""
    rows = asker.corpus.journal.query(
        "select stage, item_id from drops where run_id = ? and stage glob 'ask:*'", (asker.facts.run_id,)
    )
    return {(stage, item_id) for stage, item_id in rows}


async def note_drop(asker: Asker, prompt: Prompt, error: TeacherError, at: int = 0) -> None:
    """Note that a prompt, or the so-manieth of its answers, has no answer, and why."""
    reason = type(error).__name__
    asker.counts.drops[reason] += 1
    await note_why(asker, prompt, place_of(prompt, at)[0], reason, str(error))


async def note_passed_on(asker: Asker, prompt: Prompt, reason: str, detail: str) -> None:
    """Note that a teacher would or could not answer, and that another one was asked."""
    await note_why(asker, prompt, stage_of(f"passed on by {asker.card.teacher}", prompt), reason, detail)


async def note_why(asker: Asker, prompt: Prompt, stage: str, reason: str, detail: str) -> None:
    """Write down what happened to an item at a stage, in place of what was written there before."""
    values = (asker.facts.run_id, stage, prompt.item.item_id)
    sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"
    await asker.corpus.journal.run(lambda transaction: transaction.execute(sql, (*values, reason, detail)).close())


async def undrop(asker: Asker, place: tuple[str, str]) -> None:
    """Take back what was noted at a place."""
    values = (asker.facts.run_id, *place)
    sql = "delete from drops where run_id = ? and stage = ? and item_id = ?"
    await asker.corpus.journal.run(lambda transaction: transaction.execute(sql, values).close())


def card_of(asker: Asker, card_id: str) -> Card:
    """The card of that digest; mostly the asker's own."""
    if card_id == asker.card.card_id:
        return asker.card
    rows = asker.corpus.journal.query("select card from cards where card_id = ?", (card_id,))
    return Card.from_json(rows[0][0])


def facts_of(asker: Asker, run_id: str) -> RunFacts:
    """The facts of that run; mostly the asker's own."""
    if run_id == asker.facts.run_id:
        return asker.facts
    rows = asker.corpus.journal.query("select facts from runs where run_id = ?", (run_id,))
    return RunFacts.from_json(rows[0][0])
