"""``corpusgen policy``: what the terms allow, why, and who has waived what."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import (
    DAY,
    corpus_if_any,
    corpus_option,
    counted,
    emit,
    existing,
    harmless,
    json_option,
    opened,
    spec_argument,
    terms_spec_option,
)

if TYPE_CHECKING:
    from corpusgen.stages.terms.explaining import Explained, Explanation, Line

_VERDICT = {"allow": "ALLOWED", "needs_waiver": "NEEDS A WAIVER", "deny": "DENIED"}


@click.group()
def policy() -> None:
    """Explain what the terms allow, and keep waivers. Not legal advice."""


@policy.command()
@spec_argument
@click.option("--on", type=DAY, help="As of this day, YYYY-MM-DD; today without it.")
@corpus_option
@json_option
def explain(spec: Path, on: datetime | None, corpus_folder: Path, as_json: bool) -> None:
    """What the terms say of each teacher of a spec in each role, document by document. Sends nothing.

    Waivers, reviews and terms of the corpus count where there is one. It ends with exit code 0 whatever it finds;
    corpusgen plan and run refuse with 4.
    """
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.terms.explaining import explained

    task = load_task(spec)
    with corpus_if_any(corpus_folder) as corpus:
        found = explained(corpus, task, on.date() if on else None)
    if as_json:
        emit(found.to_json())
        return
    for line in _told(found):
        click.echo(harmless(line))


def _told(found: Explanation) -> Iterator[str]:
    from corpusgen.stages.terms.explaining import NOTICE

    use = "; ".join(f"{name}: {_said(value)}" for name, value in found.use.items())
    yield f"{found.task}, terms as of {found.on}: {_VERDICT[found.outcome]}"
    yield f"intended use  {use}"
    for one in found.teachers:
        yield ""
        yield from _of_teacher(one)
    yield ""
    yield "SOURCES"
    for source in found.sources:
        yield f"  {source['source']}: {source['title']}, {source['licence']}{_unlike(source)}"
    yield ""
    yield f"terms registry {found.registry_digest}"
    yield f"policy         {found.policy_digest}"
    yield NOTICE


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, dict):
        return _told_of(value)
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _told_of(value: dict[str, Any]) -> str:
    """What is said of an organisation, or of an agreement with a host."""
    named = f"{value['id']} with {value['host']}" if {"id", "host"} <= value.keys() else ""
    rest = [f"{name} {_said(told)}" for name, told in value.items() if not named or name not in ("id", "host")]
    said = f"({'; '.join(rest)})" if named and rest else ", ".join(rest)
    return " ".join(part for part in (named, said) if part) or "nothing said"


def _unlike(source: dict[str, Any]) -> str:
    told = [] if source["known"] else ["a licence nobody here knows"]
    told += [f"written by models under {', '.join(source['generated_by'])}"] if source["generated_by"] else []
    told += [f"personal data: {', '.join(source['personal_data'])}"] if source["personal_data"] else []
    told += [f"only to be sent to: {', '.join(source['processing_regions'])}"] if source["processing_regions"] else []
    return f" ({'; '.join(told)})" if told else ""


def _of_teacher(one: Explained) -> Iterator[str]:
    decision = one.decision
    teacher = decision.teacher
    reached = f"route {teacher.route}" + (f", host {teacher.host}" if teacher.host else "")
    yield f"TEACHER {teacher.name} ({reached}) as {decision.role}: {_VERDICT[decision.outcome]}"
    yield f"  {'outcome':<14}{'rule':<6}document, grant and finding"
    for line in one.lines:
        yield from _of_line(line)
    for duty in decision.duties:
        yield f"  duty {duty.kind} on the {duty.applies_to}: {duty.text} [{duty.terms_id}]"
    for waiver in decision.waivers:
        yield f"  waiver {waiver} counts"
    for step in one.to_do:
        yield f"  to do: {step}"
    if one.would_pass:
        yield f"  would pass: {', '.join(one.would_pass)}"
    yield f"  licence {decision.licence_expression}; terms set {decision.terms_set_id}"


def _of_line(line: Line) -> Iterator[str]:
    indent = " " * 22
    if line.title:
        grant = f"; outputs for training: {line.grant}"
        yield f"  {line.outcome:<14}{line.rule:<6}{line.title}, version {line.version} [{line.terms_id}]{grant}"
        yield f"{indent}{line.text}"
        if line.clause and line.clause not in line.text:
            yield f"{indent}{line.clause}"
        if line.file:
            yield f"{indent}from your file {line.file}"
    else:
        about = f"{line.terms_id}: " if line.terms_id else ""
        yield f"  {line.outcome:<14}{line.rule:<6}{about}{line.text}"


@policy.command()
@click.option("--terms", "terms_ids", multiple=True, required=True, help="Id of a terms document; may be repeated.")
@click.option("--rule", "rules", multiple=True, help="Only findings of this rule, such as R05; may be repeated.")
@click.option("--task", "task_glob", help="Only for tasks of this name; * stands for any part.")
@click.option("--teacher", "teacher_glob", help="Only for teachers of this name; * stands for any part.")
@click.option("--by", required=True, help="Who grants it, and is entitled to.")
@click.option("--reason", required=True, help="Why.")
@click.option(
    "--evidence",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that shows it, such as the provider's letter; its sha256 is kept, not the file.",
)
@click.option(
    "--until", required=True, type=DAY, help="Last day (UTC) on which it counts, YYYY-MM-DD; five years on at most."
)
@terms_spec_option
@corpus_option
@json_option
def waive(
    terms_ids: tuple[str, ...],
    rules: tuple[str, ...],
    task_glob: str | None,
    teacher_glob: str | None,
    by: str,
    reason: str,
    evidence: Path,
    until: datetime,
    spec: Path | None,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Accept what the terms leave open. It lifts what needs a waiver, and never turns a denial into a yes.

    What is prohibited needs the provider's written authorisation, where its terms foresee one, --rule R04, and --task
    or --teacher. It is of the documents as they are now: where one says something else later, it lifts nothing.
    """
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.terms.waiving import Asked, grant, waiver_json

    asked = Asked(
        terms_ids=terms_ids,
        rules=rules,
        task=task_glob,
        teacher=teacher_glob,
        by=by,
        reason=reason,
        evidence=evidence,
        until=until.date(),
    )
    task = None if spec is None else load_task(spec)
    with opened(corpus_folder) as corpus:
        made = grant(corpus, asked, task)
    if as_json:
        emit(waiver_json(made))
    else:
        click.echo(f"{made.waiver_id}: {_scope(waiver_json(made))}, until {made.expires}")
        click.echo(f"evidence sha256 {made.evidence_sha256}; keep the file. Not legal advice.")


def _scope(waiver: dict[str, Any]) -> str:
    rules = f" for {', '.join(waiver['rules'])}" if waiver["rules"] else ""
    task = f", task {waiver['task']}" if waiver["task"] else ""
    teacher = f", teacher {waiver['teacher']}" if waiver["teacher"] else ""
    return f"{', '.join(waiver['terms_ids'])}{rules}{task}{teacher}"


@policy.command()
@corpus_option
@json_option
def waivers(corpus_folder: Path, as_json: bool) -> None:
    """Every waiver of this corpus, with its last day and what hangs on it."""
    from corpusgen.stages.terms.waiving import waivers as kept

    with existing(corpus_folder, reading=True) as corpus:
        today = corpus.clock().date()
        found = [one.to_json(today) for one in kept(corpus)]
    if as_json:
        emit({"waivers": found})
        return
    for one in found:
        click.echo(harmless(f"{one['waiver_id']}: {_scope(one)}, {_state(one)}"))
        click.echo(harmless(f"  granted by {one['granted_by']} on {one['granted']}: {one['reason']}"))
        for hangs in one["hangs"]:
            about = f"{hangs['stage']} of {hangs['subject']} as {hangs['role']}"
            click.echo(f"  hangs on it: {about}, task {hangs['task']}, {counted(hangs['records'], 'record')}")
    if not found:
        click.echo("no waivers")


def _state(one: dict[str, Any]) -> str:
    if one["ended"]:
        return f"taken back {one['ended']}"
    if not one["in_force"]:
        return f"expired on {one['expires']}"
    return f"until {one['expires']} ({counted(one['days_left'], 'day')} left)"


@policy.command()
@click.argument("waiver_id")
@click.option("--by", default="", help="Who takes it back.")
@corpus_option
@json_option
def unwaive(waiver_id: str, by: str, corpus_folder: Path, as_json: bool) -> None:
    """Take a waiver back. What was made under it stays as it is; what is decided from now on goes without it."""
    from corpusgen.stages.terms.waiving import end_waiver

    with existing(corpus_folder) as corpus:
        ended = end_waiver(corpus, waiver_id, by or corpus.actor)
    if as_json:
        emit({"waiver_id": ended.waiver_id, "ended": True})
    else:
        click.echo(f"{ended.waiver_id}: taken back")
