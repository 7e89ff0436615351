"""A decision in words, for whoever has to act on it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corpusgen.provenance.decisions import Decision, Outcome, Reason

_VERDICT: dict[Outcome, str] = {
    "allow": "may be used as {role}",
    "needs_waiver": "may be used as {role} only once somebody entitled to it has waived what is listed here",
    "deny": "may not be used as {role}",
}


def explain(decision: Decision, suggestions: Sequence[Decision] = ()) -> str:
    """A decision in sentences: verdict, findings from the strictest down, duties, and what to do about a refusal."""
    teacher = decision.teacher
    reached = f"route {teacher.route}" + (f", host {teacher.host}" if teacher.host else "")
    verdict = _VERDICT[decision.outcome].format(role=decision.role)
    lines = [f"{decision.outcome}: {teacher.name} ({reached}) {verdict}."]
    told = [reason for reason in decision.reasons if _tells(reason, decision)]
    lines += [_line(reason) for reason in told]
    lines += [f"  duty {duty.kind} on the {duty.applies_to}: {duty.text} [{duty.terms_id}]" for duty in decision.duties]
    lines += [one for one in (_how_to_accept(decision), _what_to_say(decision), _how_to_add(decision)) if one]
    if decision.outcome != "allow" and suggestions:
        lines += ["", "These would pass: " + ", ".join(other.teacher.name for other in suggestions) + "."]
    lines.append("")
    lines.append(f"Terms set {decision.terms_set_id[:12]}, licence {decision.licence_expression}. Not legal advice.")
    return "\n".join(lines)


def _tells(reason: Reason, decision: Decision) -> bool:
    """What nothing stands against is told only where nothing stands against anything."""
    return reason.outcome != "allow" or reason.notice or decision.outcome == "allow"


def _line(reason: Reason) -> str:
    file = f" (in {reason.file})" if reason.file else ""
    subject = f"{reason.terms_id}{file}: " if reason.terms_id else ""
    return f"  {'notice' if reason.notice else reason.outcome} {reason.rule} {subject}{reason.text}"


def duties_to_accept(decision: Decision) -> tuple[str, ...]:
    """The kinds of duties that the spec does not accept yet."""
    open_duties = {(reason.terms_id, reason.duty) for reason in decision.reasons if reason.rule == "R07"}
    return tuple(sorted({duty.kind for duty in decision.duties if (duty.terms_id, duty.kind) in open_duties}))


def _how_to_accept(decision: Decision) -> str:
    kinds = duties_to_accept(decision)
    if not kinds:
        return ""
    return f"To carry them out, add to intended_use.accepted_duties in the task spec: {', '.join(kinds)}"


_FACTS = {"mau_cap": "monthly_active_users", "revenue_cap": "annual_revenue_usd", "residency": "domiciled_in"}


def _what_to_say(decision: Decision) -> str:
    """The facts that licences ask for and the spec leaves open."""
    asked = {reason.duty for reason in decision.reasons if reason.rule == "R10" and reason.outcome == "needs_waiver"}
    names = sorted(_FACTS[kind] for kind in asked if kind in _FACTS)
    return (
        f"To be judged by what is true of you, say in the task spec: organisation.{', organisation.'.join(names)}"
        if names
        else ""
    )


def _how_to_add(decision: Decision) -> str:
    missing = [gap.about for gap in decision.gaps if gap.about in ("model", "host")]
    # Where the route is wrong, more terms for the wrong route would not help.
    if not missing or any(gap.about == "route" for gap in decision.gaps):
        return ""
    intro = "No terms, no request. Write `terms_files: [terms.yaml]` in the task spec, and in that file what you read:"
    return "\n".join([intro, "", "documents:", *(_example(decision, about) for about in missing)])


def _example(decision: Decision, about: str) -> str:
    teacher = decision.teacher
    name = re.sub(r"[^a-z0-9.-]+", "-", f"{teacher.provider}-{about}".lower()).strip("-.")
    kind = "host_terms" if about == "host" else "model_licence" if teacher.route == "self_hosted" else "api_terms"
    models = "*" if about == "host" else re.sub(r"[_:@]", "-", teacher.model.lower())
    hosts = f"\n    hosts: ['{teacher.host.lower().partition(':')[0]}']" if teacher.host else ""
    return f"""\
  - id: {name}-terms-1
    provider: '{teacher.provider}'
    title: Title of the contract or licence
    version: '1'
    kind: {kind}
    routes: [{teacher.route}]{hosts}
    models: ['{models}']
    outputs_train: unclear            # allowed, conditional, unclear or prohibited
    outputs_train_competing: unclear
    commercial_use: unclear
    spdx: LicenseRef-{name}-terms
    source: where you read it
    confidence: medium                # high, medium or low
    reviewed: {decision.decided_on}"""
