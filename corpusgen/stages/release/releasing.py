"""Releasing: a student goes out under a name, with everything its terms ask for, in a folder that says who approved it.

The policy is asked once more of all that the student touched. What is published is there whole or not at all: files are
written under a hidden name, the journal and its ledger take the release in one transaction, then the folder gets its
name. Not legal advice.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Final, cast, get_args

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import PolicyRefused, SealRefused, UsageError
from corpusgen.export.completeness import licences_in
from corpusgen.export.student import StudentDuty, StudentFacts
from corpusgen.journal import Transaction
from corpusgen.provenance.decisions import Distribution
from corpusgen.provenance.documents import DutyKind
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import Bundle, Decision, Reason, release_problems
from corpusgen.records import Json, canonical_json, digest
from corpusgen.spec import BaseModelSpec, IntendedUse
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.exporting import runs_of
from corpusgen.stages.lineage.attesting import attest, signed
from corpusgen.stages.release.candidates import Candidate, Wanted, candidate_of
from corpusgen.stages.release.folder import RELEASES, check_out, check_place, laid_out, planned, texts_of
from corpusgen.stages.release.released import RELEASE_TYPE, TOLD, Noted, noted_release, noted_releases
from corpusgen.stages.release.student_facts import facts_of, plain
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import decision_json, rights_of, roles_of, with_terms_of
from corpusgen.stages.terms.rejudging import (
    Subject,
    Touch,
    check,
    check_sources,
    judged_base,
    judged_today,
    note,
    stored_tasks,
    touches_of,
)
from corpusgen.store.answers import Card
from corpusgen.store.durable import publish

CHOICE: Final = "calibration and choice of settings"
"""What those did for a student who wrote none of its rows, and whose answers chose how they are read."""
# In other alphabets are letters that look like these: a barred mark in them would pass.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .+/-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Released:
    """A release and where it lies."""

    release: dict[str, Json]
    folder: Path
    found: bool
    """True where it was released before, just like this."""


def release(corpus: Corpus, wanted: Wanted) -> Released:
    """Release a student: judged, laid out in a folder, signed and noted. The same content is found, not made twice.

    Raises PolicyRefused with rule and clause where terms, waivers or what goes along do not allow it; SealRefused for a
    dataset that was revoked; CorpusDamaged for a student whose files are not those that were trained; UsageError for
    names and places that cannot be.
    """
    _check_said(wanted)
    if wanted.out is not None:
        check_out(corpus, wanted.out)
    candidate = candidate_of(corpus, wanted)
    tasks = _tasks(corpus, wanted, candidate)
    subject = Subject(
        stage="release", name=candidate.student_id, kind="student", run_id=candidate.run_id, doing="released"
    )
    touched = _touched(corpus, tasks[0], candidate)
    if candidate.base is None and (base := tasks[0].spec.student.base) is not None:
        candidate = replace(candidate, base=base)
    decisions = _judged(corpus, subject, tasks, list(touched), candidate.base, _told_of(candidate, tasks))
    facts = facts_of(corpus, wanted, tasks, candidate, touched, decisions)
    texts = texts_of(facts)
    if problems := [*_problems(facts, texts, decisions)]:
        note(corpus, subject, _denied(decisions, problems))
        raise PolicyRefused(_told(facts.name, problems))
    with one_at_a_time(corpus.folder / ".releases.lock"):
        return _publish(corpus, wanted, candidate, facts, texts, decisions)


def _check_said(wanted: Wanted) -> None:
    if not _NAME.fullmatch(wanted.name):
        raise UsageError(f"--name: {wanted.name!r} is no name for a model; write A-Z, a-z, 0-9, spaces and . _ + / -")
    kinds = get_args(DutyKind)
    for duty in wanted.accept:
        if duty.rpartition("/")[2] not in kinds:
            raise UsageError(f"--accept: {duty!r} is no duty; write one of {', '.join(kinds)}")
    if not wanted.approver.strip() or not wanted.approver.isprintable():
        raise UsageError("--approver: name the person who answers for this release")


def _tasks(corpus: Corpus, wanted: Wanted, candidate: Candidate) -> list[Task]:
    """The tasks whose intended use counts, with the duties that the approver accepts beside theirs."""
    named, found = wanted.task, list[Task]()
    names = {one.name for one in candidate.datasets}
    if named is not None and named.spec.name not in names:
        raise UsageError(f"--spec is of task {named.spec.name!r}, and the student learned from {_and(names)}")
    for one in candidate.datasets:
        if named is not None and named.spec.name == one.name:
            check_sources(corpus, one.label, one.manifest, named)
            found.append(with_terms_of(corpus, named))
        else:
            found += stored_tasks(corpus, one.label, runs_of(one), one.manifest)
    use = None if named is None else named.spec.intended_use
    return [_accepting(task, use or task.spec.intended_use, wanted.accept) for task in found]


def _accepting(task: Task, use: IntendedUse, accept: Sequence[str]) -> Task:
    accepted = tuple(dict.fromkeys((*use.accepted_duties, *accept)))
    spec = task.spec.model_copy(update={"intended_use": use.model_copy(update={"accepted_duties": accepted})})
    return replace(task, located=replace(task.located, spec=spec))


def _and(names: Iterable[str]) -> str:
    return " and ".join(map(repr, sorted(names)))


def _touched(corpus: Corpus, task: Task, candidate: Candidate) -> dict[Touch, str]:
    """Everybody who did something for the student, and for what: its rows, or the choices made while it was trained."""
    found: dict[Touch, str] = {}
    for sealed in candidate.datasets:
        touches = touches_of(corpus, task, sealed.manifest, sealed.files)
        found |= dict.fromkeys((one for one in touches if not one.chose), "")
        chose = (one for one in touches if one.chose)
        for touch in (*chose, *_choosing(corpus, task, runs_of(sealed))):
            if all(_who(one) != _who(touch) for one in found):
                found[touch] = CHOICE
    return found


def _told_of(candidate: Candidate, tasks: Sequence[Task]) -> list[Mapping[str, Json]]:
    """The sources that its datasets tell of, and those of the text it has read without labels.

    Raises UsageError for text that nobody says the licence of.
    """
    told = [source for one in candidate.datasets for source in one.manifest.get("sources", ())]
    told += candidate.sources
    known = {one["source_id"] for one in told} | {source.id for task in tasks for source in task.spec.sources}
    if lost := sorted(set(candidate.read) - known):
        raise UsageError(
            f"student {candidate.student_id} has read text of source {lost[0]!r}, and does not say under which licence;"
            " name the spec it was trained with, with --spec"
        )
    return told


def _who(touch: Touch) -> tuple[object, ...]:
    return touch.role, touch.teacher, touch.terms_set_id


def _choosing(corpus: Corpus, task: Task, run_ids: Sequence[str]) -> Iterator[Touch]:
    """Whose answers to validation items chose how labels are read, and when asking ended."""
    marks = ",".join("?" * len(run_ids))
    rows = corpus.journal.query(
        "select distinct card from records join answers using (request_key) join cards using (card_id)"  # noqa: S608
        f" where run_id in ({marks}) and split = 'validation' order by card",
        tuple(run_ids),
    )
    for (text,) in rows:
        for role in roles_of(task):
            yield Touch.of_card(Card.from_json(text), role, 0)


def _judged(
    corpus: Corpus,
    subject: Subject,
    tasks: Sequence[Task],
    touches: Sequence[Touch],
    base: BaseModelSpec | None,
    told: Sequence[Mapping[str, Json]],
) -> tuple[Decision, ...]:
    """What today's policy says of all of it, written down. Raises PolicyRefused where it does not allow it."""
    found = tuple(dict.fromkeys(one for task in tasks for one in judged_today(corpus, task, touches, told).values()))
    of_base = [] if base is None else [judged_base(corpus, tasks[0], base)]
    note(corpus, subject, found)
    if base is not None:
        note(corpus, replace(subject, kind="base", name=base.model), of_base)
    decisions = (*found, *of_base)
    try:
        check(subject, decisions)
    except PolicyRefused as error:
        asked = any(reason.rule == "R07" for one in decisions for reason in one.reasons)
        how = "\n  or give --accept for each duty that will be carried out" if asked else ""
        raise PolicyRefused(f"{error}{how}{_expired(corpus, decisions)}") from error
    return decisions


def _expired(corpus: Corpus, decisions: Sequence[Decision]) -> str:
    """Waivers of these terms that are over: what was allowed once need not be any more."""
    open_terms = {reason.terms_id for one in decisions for reason in one.reasons if reason.outcome == "needs_waiver"}
    today = max((one.decided_on for one in decisions), default=None)
    over = [
        f"waiver {one.waiver_id} of {', '.join(one.terms_ids)} was over on {one.expires}"
        for one in rights_of(corpus, None).waivers
        if today is not None and one.expires < today and open_terms & set(one.terms_ids)
    ]
    return "".join(f"\n  {line}" for line in over)


def _problems(facts: StudentFacts, texts: Mapping[str, str], decisions: Sequence[Decision]) -> Iterator[Reason]:
    """What keeps it from going out under its name with what goes along (R15)."""
    held = tuple(dict.fromkeys(one.about for one in facts.held))
    bundle = Bundle(
        card=texts["MODEL_CARD.md"],
        notice=texts["NOTICE"],
        licences=held,
        use_policies=tuple(duty.terms_id for duty in facts.duties if duty.kind == "use_policy_flow_down"),
    )
    distribution = cast("Distribution", facts.purpose.student_distribution)
    yield from release_problems(facts.name, decisions, bundle, distribution=distribution)
    if distribution != "internal":
        yield from _lost_notices(facts)


def _lost_notices(facts: StudentFacts) -> Iterator[Reason]:
    """A source's licence that wants its notice kept, and nobody kept it."""
    wanting = {duty.terms_id: duty.text for duty in facts.duties if duty.kind == "notice_file"}
    for source in facts.sources:
        for name in licences_in(source.licence):
            if name in wanting and not source.notice:
                text = f"the notice of source {source.source_id!r} does not go along ({wanting[name]}); name its file"
                yield Reason(
                    rule="R15",
                    terms_id=name,
                    text=f"{text} as notice: in the spec, and that with --spec",
                    outcome="deny",
                )


def _denied(decisions: Sequence[Decision], problems: Sequence[Reason]) -> list[Decision]:
    """The decisions that the problems are about, as they came out in the end."""
    about = [one for one in decisions if {reason.terms_id for reason in problems} & {*one.terms_ids}]
    return [
        replace(one, outcome="deny", reasons=(*problems, *(reason for reason in one.reasons if reason not in problems)))
        for one in about or decisions[:1]
    ]


def _told(name: str, problems: Sequence[Reason]) -> str:
    lines = [f"{name!r} may not be released like this:"]
    lines += [f"  {one.outcome} {one.rule} {one.terms_id + ': ' if one.terms_id else ''}{one.text}" for one in problems]
    if any("copy of" in one.text for one in problems):
        lines.append("A text is kept with corpusgen terms snapshot, and goes along from then on.")
    return "\n".join([*lines, "Not legal advice."])


def _publish(
    corpus: Corpus,
    wanted: Wanted,
    candidate: Candidate,
    facts: StudentFacts,
    texts: Mapping[str, str],
    decisions: Sequence[Decision],
) -> Released:
    files = planned(candidate, facts, texts)
    datasets: list[Json] = [{"dataset": one.label, "manifest_sha256": one.manifest_sha256} for one in facts.datasets]
    base = None if candidate.base is None else candidate.base.model_dump(mode="json", exclude_defaults=True)
    content = {"name": wanted.name, "student_id": candidate.student_id, "datasets": datasets, "base": base}
    release_id = digest(content | {"files": files})[:16]
    out = wanted.out or corpus.folder / RELEASES / f"{plain(wanted.name)}-{release_id[:8]}"
    found = _released_before(corpus, wanted, release_id)
    said = (
        found.said
        if found
        else _said(corpus, wanted, facts, decisions, {"release_id": release_id, **content, "files": files})
    )
    if out.exists():
        check_place(corpus, out, said, found.envelope if found else None, files)
    envelope = found.envelope if found else signed(corpus, RELEASE_TYPE, said)
    hidden = None if out.exists() else laid_out(corpus, candidate, facts, texts, said, envelope, out)
    if not found:
        try:
            corpus.journal.run_now(lambda transaction: _note(transaction, candidate, said, envelope))
        except BaseException:
            if hidden is not None:
                shutil.rmtree(hidden, ignore_errors=True)
            raise
        attest(corpus)
    if hidden is not None:
        publish(hidden, out)
    return Released(release=said, folder=out, found=bool(found))


def _said(
    corpus: Corpus,
    wanted: Wanted,
    facts: StudentFacts,
    decisions: Sequence[Decision],
    content: Mapping[str, Json],
) -> dict[str, Json]:
    """What a release says of itself, and is signed."""
    return {
        **content,
        "approver": wanted.approver,
        "released_time": corpus.clock().astimezone(UTC).isoformat(),
        "intended_use": _use(facts, wanted),
        "decisions": [orjson.loads(decision_json(one, subject_kind="student")) for one in decisions],
        "duties": [_duty_json(one) for one in facts.duties],
        "waivers": list(facts.waivers),
        "policy_digest": decisions[0].policy_digest,
        "registry_digest": decisions[0].registry_digest,
    }


def _use(facts: StudentFacts, wanted: Wanted) -> dict[str, Json]:
    use = facts.purpose
    return {
        "student_distribution": use.student_distribution,
        "student_competes": use.student_competes,
        "commercial": use.commercial,
        "accepted_by_approver": list(wanted.accept),
    }


def _duty_json(duty: StudentDuty) -> dict[str, Json]:
    return {name: getattr(duty, name) for name in ("kind", "applies_to", "text", "terms_id", "second_order")}


def _released_before(corpus: Corpus, wanted: Wanted, release_id: str) -> Noted | None:
    """The same release, if there is one. Raises UsageError where it was withdrawn, or somebody else approved it."""
    found = noted_release(corpus, release_id)
    if found is None:
        return None
    if (gone := found.withdrawn) is not None:
        raise UsageError(
            f"release {release_id} was withdrawn on {gone['withdrawn_time'][:10]} by {gone['by']} ({gone['reason']});"
            " what is released again must be another student, or have another name"
        )
    if found.said["approver"] != wanted.approver:
        raise UsageError(
            f"--approver: release {release_id} is this very content, and {found.said['approver']} approved it on"
            f" {found.said['released_time'][:10]}; a release has one approver: name that one, or release it under"
            " another name"
        )
    return found


def _note(transaction: Transaction, candidate: Candidate, said: Mapping[str, Json], envelope: str) -> None:
    for one in candidate.datasets:  # an erasure may have come in between
        where = "select 1 from datasets where name = ? and version = ? and status = 'sealed'"
        if not transaction.rows(where, (one.name, one.version)):
            raise SealRefused(f"{one.label} is no longer sealed; nothing was released")
    if candidate.made_elsewhere:
        _enter(transaction, candidate, said)
    transaction.execute(
        "insert into releases(release_id, student_id, release, envelope, released_us) values(?, ?, ?, ?, ?)",
        (
            said["release_id"],
            said["student_id"],
            canonical_json(dict(said)).decode(),
            envelope,
            transaction.now_us,
        ),
    )
    note_event(transaction, "released", {name: said[name] for name in TOLD})


def _enter(transaction: Transaction, candidate: Candidate, said: Mapping[str, Json]) -> None:
    """Put a student that was made elsewhere among the corpus's own, so that audits, erasures and lineage see it."""
    if transaction.rows("select 1 from students where student_id = ?", (candidate.student_id,)):
        return
    first = candidate.datasets[0]
    facts = {name: said[name] for name in ("intended_use", "datasets", "base")} | {"made_elsewhere": True}
    transaction.execute(
        "insert into students(student_id, run_id, dataset, facts, trained_us) values(?, ?, ?, ?, ?)",
        (candidate.student_id, candidate.run_id, first.label, canonical_json(facts).decode(), transaction.now_us),
    )
    trained = {"student_id": candidate.student_id, "dataset": first.label, "manifest_sha256": first.manifest_sha256}
    note_event(
        transaction, "student_trained", trained | {"files": {}, "made_elsewhere": True}
    )  # its files lie elsewhere


def releases(corpus: Corpus) -> list[dict[str, Json]]:
    """Every release as it was signed, oldest first; one that was withdrawn says when, by whom and why."""
    return [one.to_json() for one in noted_releases(corpus)]


def withdraw(corpus: Corpus, release_id: str, *, by: str, reason: str) -> dict[str, Json]:
    """Note that a release is no longer approved; copies that others have stay with them.

    Raises UsageError where there is no such release, or it was withdrawn before.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("--withdraw: say who withdraws it with --by, and why with --reason")
    found = [one for one in releases(corpus) if release_id and one["release_id"].startswith(release_id)]
    if len(found) != 1:
        known = ", ".join(one["release_id"] for one in releases(corpus)) or "none yet"
        raise UsageError(f"--withdraw: {release_id!r} is not one release; there are: {known}")
    (said,) = found
    if (gone := said.get("withdrawn")) is not None:
        raise UsageError(f"release {said['release_id']} was withdrawn on {gone['withdrawn_time'][:10]} by {gone['by']}")
    about = {"by": by, "reason": reason, "withdrawn_time": corpus.clock().astimezone(UTC).isoformat()}
    named = {name: said[name] for name in ("release_id", "student_id", "name")}

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "update releases set withdrawn_us = ?, release = ? where release_id = ?",
            (transaction.now_us, canonical_json(said | {"withdrawn": about}).decode(), said["release_id"]),
        )
        note_event(transaction, "withdrawn", named | about)

    corpus.journal.run_now(operation)
    attest(corpus)
    return said | {"withdrawn": about}
