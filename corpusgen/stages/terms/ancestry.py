"""What today's terms say of everything that a task's seeds were made from."""

from __future__ import annotations

from corpusgen.corpus import Corpus
from corpusgen.provenance.decisions import Decision
from corpusgen.stages.parents import named_parents, names_parents
from corpusgen.stages.task import Task


def decisions_above(corpus: Corpus, task: Task) -> tuple[Decision, ...]:
    """What today's terms say of everybody who wrote what a task's seeds were made from, for the task's student."""
    if not names_parents(task):
        return ()
    from corpusgen.stages.terms.rejudging import (  # with Arrow, which most tasks do without here
        judged_today,
        touches_above,
    )

    return tuple(dict.fromkeys(judged_today(corpus, task, touches_above(corpus, named_parents(corpus, task))).values()))
