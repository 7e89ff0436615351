"""The gate before a run: it is open where the terms allow every teacher in every role, and what they say stays."""

from __future__ import annotations

from collections.abc import Sequence

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError
from corpusgen.journal import Transaction
from corpusgen.provenance.decisions import Decision
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import keep_terms, name_of, note_decisions, refusal, registry_of


async def gate(corpus: Corpus, run_id: str, task: Task, decisions: Sequence[Decision]) -> None:
    """Write down what the terms say of each teacher in each role. Raises PolicyRefused for the first that is denied.

    With a refusal stands what the asking would have cost, as far as that can be told.
    """
    refused = next((one for one in decisions if one.outcome != "allow"), None)
    estimates = {} if refused is None else await _would_cost(task, corpus)
    registry = registry_of(corpus, task)

    def operation(transaction: Transaction) -> None:
        keep_terms(transaction, registry, name_of(task))
        note_decisions(transaction, run_id, "plan", decisions, estimates=estimates)

    await corpus.journal.run(operation)
    if refused is not None:
        raise refusal(corpus, task, refused, decisions)


async def _would_cost(task: Task, corpus: Corpus) -> dict[str, int]:
    """What each teacher of a task would likely cost, in micro-dollars; none where planning fails."""
    from corpusgen.stages.planning import plan  # which nobody needs who may ask

    try:
        made = await plan(task, corpus)
    except CorpusgenError:  # it says so by itself when it is asked for; the refusal matters more here
        return {}
    costs: dict[str, int] = {}
    for part in made.teachers:
        costs[part.name] = costs.get(part.name, 0) + round(part.microusd.likely)
    return costs
