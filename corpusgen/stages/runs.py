"""A run as every stage sees it once it is open: who is asked, by what name, under which caps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from corpusgen.budget.amounts import unit_name
from corpusgen.budget.ledger import Cap
from corpusgen.corpus import Corpus
from corpusgen.fanout.asker import Asker
from corpusgen.fields import Unit
from corpusgen.prompting.prompts import Requester
from corpusgen.provenance.decisions import Decision
from corpusgen.stages.lanes import Lane
from corpusgen.stages.task import Task, requester
from corpusgen.teachers.teacher import Teacher

JUDGES = "-judge-"
"""Between the name of a run and what tells the prompt and the teacher of its judge."""
OF_RUN = f"(run_id = ?1 or run_id glob ?1 || '{JUDGES}*')"
"""What belongs to a run in SQL, its judge's share among it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open run: the task, the corpus, the decision that allows it, and the asker that does the work."""

    task: Task
    corpus: Corpus
    run_id: str
    members: tuple[Member, ...]
    """The teachers, in the spec's order."""
    asker: Asker
    lane: Lane
    judge: Member | None = None
    """Who scores the answers, where somebody does."""

    @property
    def everybody(self) -> tuple[Member, ...]:
        """The teachers, and the judge after them."""
        return self.members if self.judge is None else (*self.members, self.judge)

    @property
    def sent(self) -> int:
        """Requests sent in this start."""
        return self.asker.counts.sent + (self.judge.asker.counts.sent if self.judge else 0)

    @property
    def put_aside(self) -> dict[str, int]:
        """Answers of this start that go into no dataset, by why."""
        judged = self.judge.asker.counts.quarantined if self.judge else {}
        return dict(Counter(self.asker.counts.quarantined) + Counter(judged))

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The run, and that of its judge, whose records tell another prompt and another spec."""
        return (self.run_id,) if self.judge is None else (self.run_id, self.judge.asker.facts.run_id)

    @property
    def decision(self) -> Decision:
        """What the terms say of the first teacher."""
        return self.members[0].decision

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What the terms say of each teacher, the judge among them."""
        return tuple(member.decision for member in self.everybody)

    @property
    def requester(self) -> Requester:
        """Makes the request for the n-th sample of an item, to whom it falls first."""
        return requester(self.task, [teacher.card for teacher in self.teachers])

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Who is asked, in the spec's order."""
        return tuple(member.asker.teacher for member in self.members)

    @property
    def readers(self) -> tuple[Teacher, ...]:
        """Who reads the replies: the teachers, and the judge its own."""
        return tuple(member.asker.teacher for member in self.everybody)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One teacher of a run: the task as this teacher sees it, what the terms say of it, and who asks it."""

    task: Task
    decision: Decision
    asker: Asker


def judge_run_id(run_id: str, judging: Task) -> str:
    """The name of the row of a run's judging; another prompt, scale or judge has another."""
    return f"{run_id}{JUDGES}{judging.identity[:8]}"


def caps_of(task: Task, given: Mapping[Unit, int]) -> list[Cap]:
    """The caps that bind a run: those given, else those of the spec."""
    of_spec = {
        unit: Cap(
            scope="",
            unit=unit,
            cap=cap,
            origin=f"{task.located.where('budget', unit_name(unit))}: budget.{unit_name(unit)}",
        )
        for unit, cap in task.spec.budget.caps().items()
    }
    of_caller = {
        unit: Cap(scope="", unit=unit, cap=cap, origin=f"--budget {unit_name(unit)}") for unit, cap in given.items()
    }
    return list({**of_spec, **of_caller}.values())
