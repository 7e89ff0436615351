"""What to do about a refusal: the commands that would change it, and who would have to stand behind them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpusgen.provenance.policy import Decision, Reason
from corpusgen.provenance.terms import Registry

_OF_THE_SPEC = {
    "R10": "change what the student is for (intended_use), or leave the teacher or source out",
    "R11": "name the provider's agreement under agreements, ask one on this machine, or mask what curate.pii finds",
    "R12": "correct the source's licence in the spec, leave the source out, or make one dataset for each licence",
    "R16": "ask a teacher on this machine, or write egress: any",
}
_OTHERWISE = ("R02", "R07")
"""Findings that are better answered by reading again, and by carrying duties out."""
_SERVER = "--base-url URL --provider P --route R --terms FILE"
_PROMISES = "--by NAME --reason TEXT --evidence FILE --until DATE"


def advice(decision: Decision, registry: Registry, task: str, spec: Path | None = None) -> tuple[str, ...]:
    """What would let a refused decision pass, a line each; empty where it passes.

    ``spec`` is the file of a task that brings terms of its own, which commands have to be told of.
    """
    refused = [reason for reason in decision.reasons if reason.outcome != "allow"]
    own = "" if spec is None else f" --spec {shlex.quote(str(spec))}"
    return tuple(dict.fromkeys(_lines(refused, decision, registry, task, own)))


def _lines(refused: Sequence[Reason], decision: Decision, registry: Registry, task: str, own: str) -> Iterator[str]:
    for reason in refused:
        if reason.rule == "R02" and reason.terms_id:
            yield f"read it again and note that you did: corpusgen terms review {reason.terms_id} --by NAME{own}"
        if reason.rule == "R01" and any(gap.about == "route" for gap in decision.gaps):
            yield "R01: name the route that the host is reached by, as the finding says; no terms are for another one"
        elif reason.rule == "R01":
            yield "add the terms that cover it: corpusgen terms add FILE (--organisation: for all your corpora)"
            yield f"or add a server of your own with its terms: corpusgen teachers add NAME {_SERVER}"
        if reason.rule in _OF_THE_SPEC:
            yield f"{reason.rule}: {_OF_THE_SPEC[reason.rule]}"
    yield from _waiving(refused, decision, registry, task, own)


def _waiving(refused: Sequence[Reason], decision: Decision, registry: Registry, task: str, own: str) -> Iterator[str]:
    """What to waive; nothing where something would stand against it all the same."""
    prohibited = [reason for reason in refused if reason.rule == "R04"]
    if not all(_authorisable(reason, registry) for reason in prohibited):
        yield "a prohibition is not waived: ask a teacher that would pass, or change what the student is for"
        return
    open_ = [reason for reason in refused if reason.outcome == "needs_waiver" and reason.rule not in _OTHERWISE]
    if open_ or prohibited:
        asked = "" if not prohibited else " (with the provider's written authorisation as evidence)"
        every = dict.fromkeys([*open_, *prohibited])
        yield f"whoever may accept it{asked}: {waive_command(tuple(every), decision, task)}{own}"


def _authorisable(reason: Reason, registry: Registry) -> bool:
    document = registry.by_id.get(reason.terms_id or "")
    return document is not None and document.written_authorisation


def waive_command(reasons: Sequence[Reason], decision: Decision, task: str) -> str:
    """The command that waives these findings for this teacher and task."""
    terms = dict.fromkeys(reason.terms_id for reason in reasons if reason.terms_id)
    rules = dict.fromkeys(reason.rule for reason in reasons)
    words = [f"--terms {name}" for name in terms] + [f"--rule {rule}" for rule in rules]
    scope = f"--task {shlex.quote(task)} --teacher {shlex.quote(decision.teacher.name)}"
    return f"corpusgen policy waive {' '.join(words)} {scope} {_PROMISES}"
