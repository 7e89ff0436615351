"""Judging again: what today's terms say of a sealed dataset, by everything that teachers and sources did for it.

Terms change after answers were paid for. So the policy is asked once more before rows are exported, before a student
learns, and before one is released: of every teacher in every role, under the terms that its answers were given under.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from pydantic import ValidationError

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, CorpusUnwritable, PolicyRefused, UsageError
from corpusgen.evaluate.calibration import Calibration
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompter
from corpusgen.provenance.licences import about_sources
from corpusgen.provenance.policy import Decision, IntendedUse, Role, SourceUse, decide, explain
from corpusgen.provenance.terms import Route, TeacherRoute
from corpusgen.records import Json, canonical_json
from corpusgen.spec import BaseModelSpec, Located, Source, TaskSpec
from corpusgen.spec import IntendedUse as IntendedUseSpec
from corpusgen.stages.imports.admitting import RUN
from corpusgen.stages.imports.importing import imported_rights, imported_sources
from corpusgen.stages.judges import Judges
from corpusgen.stages.parents import descent
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import (
    Stage,
    SubjectKind,
    keep_terms,
    name_of,
    note_decisions,
    registry_of,
    rights_of,
    roles_of,
    sources_of,
    use_of,
)
from corpusgen.stages.terms.quarantine import route_of_card
from corpusgen.store.answers import Card
from corpusgen.store.shards import read_batches, read_columns, read_records
from corpusgen.teachers.imported import SCHEME

CALIBRATION: Final = "calibration"
"""What a manifest calls the role of those who only chose how labels are read; terms know it as ``logprobs``."""
_ROAD: Final = ("provider", "model", "route", "host", "region", "unpaid", "weights_sha256")
"""How a manifest tells of a teacher's route."""
_REACHED: Final = ("teacher", "provider", "model_requested", "route", "host", "terms_set_id")


@dataclass(frozen=True, kw_only=True)
class Touch:
    """One teacher in one role, by one road and under one set of terms, and how many rows it did something for."""

    role: Role
    teacher: TeacherRoute
    terms_set_id: str
    terms_ids: tuple[str, ...]
    rows: int
    judged: bool = False
    """Whether it scored answers that others wrote."""
    above: bool = False
    """Whether it wrote no row, but records that rows were made from."""
    chose: bool = False
    """Whether its answers to other items, validation ones among them, chose how labels are read."""

    @property
    def wrote(self) -> bool:
        """Whether rows are its answers."""
        return not (self.judged or self.above or self.chose)

    @classmethod
    def of_card(
        cls, card: Card, role: Role, rows: int, *, judged: bool = False, above: bool = False, chose: bool = False
    ) -> Touch:
        """Whoever is on a card, in one role."""
        return cls(
            role=role,
            teacher=route_of_card(card),
            terms_set_id=card.terms_set_id,
            terms_ids=card.terms_ids,
            rows=rows,
            judged=judged,
            above=above,
            chose=chose,
        )

    @classmethod
    def of_decision(cls, decision: Decision) -> Touch:
        """A judge that only dropped rows, as what was decided about it tells."""
        return cls(
            role=decision.role,
            teacher=decision.teacher,
            terms_set_id=decision.terms_set_id,
            terms_ids=decision.terms_ids,
            rows=0,
            judged=True,
        )

    def to_json(self) -> dict[str, Json]:
        """The touch as a manifest names it."""
        teacher = self.teacher
        return {
            "role": CALIBRATION if self.chose else self.role,
            "teacher": teacher.name,
            **{name: getattr(teacher, name) for name in _ROAD},
            "terms_set_id": self.terms_set_id,
            "terms_ids": list(self.terms_ids),
            "rows": self.rows,
            "judged": self.judged,
            **({"above": True} if self.above else {}),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Json]) -> Touch:
        """The touch that a manifest names."""
        chose = fields["role"] == CALIBRATION
        return cls(
            role="logprobs" if chose else fields["role"],
            teacher=TeacherRoute(name=fields["teacher"], **{name: fields[name] for name in _ROAD}),
            terms_set_id=fields["terms_set_id"],
            terms_ids=tuple(fields["terms_ids"]),
            rows=fields["rows"],
            judged=fields["judged"],
            above=fields.get("above", False),
            chose=chose,
        )


def touches_of_rows(corpus: Corpus, task: Task, paths: Sequence[Path], judges: Judges) -> tuple[Touch, ...]:
    """Everybody who did something for the rows of some files: their teachers, and who judged them.

    Raises CorpusDamaged for a set of terms that the corpus does not know.
    """
    table = read_columns(paths, _REACHED)
    rows = table.group_by(list(_REACHED)).aggregate([([], "count_all")]).to_pylist()
    cards = {_road(card): card for card in stored_cards(corpus)}
    terms = {card.terms_set_id: card.terms_ids for card in cards.values()}
    roles = roles_of(task)
    found = [
        Touch(
            role=role,
            teacher=_route(row, cards.get(tuple(row[name] for name in _REACHED))),
            terms_set_id=row["terms_set_id"],
            terms_ids=_terms(terms, row["terms_set_id"], row["count_all"]),
            rows=row["count_all"],
        )
        for row in rows
        for role in roles
    ]
    above = touches_above(corpus, parents_of(paths))
    return (*sorted(found, key=_order), *_judging(task, judges), *above)


def touches_above(corpus: Corpus, parents: Iterable[str]) -> tuple[Touch, ...]:
    """Everybody who wrote these records, or what they were made from: rows that descend from them use their words."""
    found = [
        Touch.of_card(card, cast("Role", used_as), rows, above=True)
        for (card, used_as), rows in descent(corpus, parents).writers.items()
    ]
    return tuple(sorted(found, key=_order))


def parents_of(paths: Sequence[Path]) -> Iterator[str]:
    """The records that rows of some files were made from."""
    for batch in read_batches(paths, ["parent_ids"]):
        for names in batch.column("parent_ids").to_pylist():
            yield from names or ()


def _judging(task: Task, judges: Judges) -> Iterator[Touch]:
    roles: tuple[Role, ...] = ("judge",) if task.judging is None else roles_of(task.judging)
    for card, rows in judges.cards.items():
        for role in roles:
            yield Touch.of_card(card, role, rows, judged=True)


def _road(card: Card) -> tuple[str, ...]:
    return card.teacher, card.provider, card.model, card.route, card.host, card.terms_set_id


def _order(touch: Touch) -> tuple[str, ...]:
    teacher = touch.teacher
    return teacher.name, teacher.provider, teacher.model, teacher.route, teacher.host, touch.terms_set_id


def _route(row: Mapping[str, Json], card: Card | None) -> TeacherRoute:
    if card is not None:
        return route_of_card(card)
    return TeacherRoute(
        name=row["teacher"],
        provider=row["provider"] or "",
        model=row["model_requested"] or "",
        route=cast("Route", row["route"]),
        host=row["host"] or "",
    )


def _terms(known: Mapping[str, tuple[str, ...]], terms_set_id: str, rows: int) -> tuple[str, ...]:
    if terms_set_id not in known:
        raise CorpusDamaged(
            f"{rows} records are under terms set {terms_set_id!r}, which the journal does not spell out; restore it"
        )
    return known[terms_set_id]


def stored_cards(corpus: Corpus) -> list[Card]:
    """Everybody who ever answered in a corpus, by every road and under every set of terms."""
    return [Card.from_json(row[0]) for row in corpus.journal.query("select card from cards order by card_id")]


def touches_of(corpus: Corpus, task: Task, manifest: Mapping[str, Json], paths: Sequence[Path]) -> tuple[Touch, ...]:
    """Everybody who did something for a sealed dataset, in every role."""
    found = manifest.get("calibration")
    named = tuple(map(Touch.from_json, manifest.get("touched", ())))
    if any(one.chose for one in named) or not found:
        chose: tuple[Touch, ...] = ()
    else:  # sealed by an earlier version, which did not tell whose answers it was made from
        chose = touches_of_choice(corpus, manifest["name"], Calibration.from_json(found))
    if "touched" in manifest:
        return (*named, *chose)
    judges = Judges(corpus)  # sealed by an earlier version, which left them to be found out
    for _ in judges.watching(read_records(paths) if "judges" in manifest else ()):
        pass
    return (*touches_of_rows(corpus, task, paths, judges), *chose)


def touches_of_choice(corpus: Corpus, name: str, calibration: Calibration) -> tuple[Touch, ...]:
    """Everybody whose answers a calibration was made from.

    One that does not say of which runs: everybody who ever answered validation items of that dataset.
    """
    raw = calibration.kind == "raw"  # its temperature is of validation items; the others' means are of the pool's
    splits = ("validation",) if raw else ("validation", "train")
    runs = calibration.runs or _validated(corpus, name)
    marks = ",".join("?" * len(runs))
    of_runs = f"(r.run_id in ({marks}) or r.record_id in (select record_id from reuses where run_id in ({marks})))"  # noqa: S608
    rows = corpus.journal.query(
        "select card, count(*) from records r join answers using (request_key) join cards using (card_id)"  # noqa: S608
        f" where {of_runs} and split in ({','.join('?' * len(splits))}) group by card order by card",
        (*runs, *runs, *splits),
    )
    return tuple(Touch.of_card(Card.from_json(text), "logprobs", count, chose=True) for text, count in rows)


def _validated(corpus: Corpus, name: str) -> tuple[str, ...]:
    rows = corpus.journal.query(
        "select distinct run_id from records where dataset = ? and split = 'validation' order by run_id", (name,)
    )
    return tuple(str(row[0]) for row in rows)


# --- By which spec ---------------------------------------------------------------------------------------------------


def stored_tasks(corpus: Corpus, label: str, run_ids: Sequence[str], manifest: Mapping[str, Json]) -> list[Task]:
    """The tasks that a dataset's runs were of, as the journal keeps their specs, without the files that a spec names.

    The intended use is that of the sealing, which may have come later. Runs that stand for imports have no spec.
    Raises UsageError where no spec is kept that can be read.
    """
    run_ids = [name for name in run_ids if not name.startswith(RUN)]
    marks = ",".join("?" * len(run_ids))
    rows = corpus.journal.query(
        f"select distinct spec from runs where run_id in ({marks}) order by spec",  # noqa: S608 - own text
        tuple(run_ids),
    )
    tasks = [stored_task(corpus, label, str(text)) for (text,) in rows]
    if not tasks:
        raise UsageError(f"{label}: the journal keeps no spec of its runs; name the spec with --spec")
    if "intended_use" not in manifest:
        return tasks
    use = IntendedUseSpec.model_validate_json(canonical_json(manifest["intended_use"]))
    specs = (task.spec.model_copy(update={"intended_use": use}) for task in tasks)
    return [replace(task, located=replace(task.located, spec=spec)) for task, spec in zip(tasks, specs, strict=True)]


def stored_task(corpus: Corpus, label: str, text: str) -> Task:
    """A task as far as the journal keeps it: what the policy asks of it is there, its prompt and its files are not."""
    try:
        spec = TaskSpec.model_validate_json(text)
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise UsageError(f"{label}: its spec as it was then cannot be read ({told}); name one with --spec") from error
    spec = spec.model_copy(update={"terms_files": ()})
    located = Located(spec=spec, file=corpus.journal.path, lines={})
    no_prompter = cast("Prompter", None)  # nothing is asked
    return Task(located=located, prompter=no_prompter, registry=registry_of(corpus, None))


def judged_today(
    corpus: Corpus, task: Task, touches: Sequence[Touch], told: Sequence[Mapping[str, Json]] = ()
) -> dict[Touch, Decision]:
    """What today's terms say of each touch, under the terms its answers were given under, for the task's student.

    ``told`` are sources as manifests and students tell of them: they count beside the task's, whatever a spec says.
    """
    rights, (use, said) = rights_of(corpus, task), settled(use_of(task), sources_of(task, corpus))
    sources = tuple(dict.fromkeys((*said, *_asked_about(corpus, told, touches))))
    on = corpus.clock().date()
    outside = {touch.teacher.name: 0 for touch in touches if touch.teacher.route == "imported"}
    imports = {one.teacher.name: one for one in imported_rights(corpus, task, {"teacher": outside}, on)}

    def ask(touch: Touch) -> Decision:
        decision = decide(
            rights.registry,
            touch.teacher,
            use,
            on=on,
            role=touch.role,
            sources=sources,
            waivers=rights.waivers,
            original_terms=touch.terms_ids,
            task=name_of(task),
        )
        # Where a document stands in for another by now, rows keep the name of what they came under.
        return replace(decision, terms_set_id=touch.terms_set_id)

    return {touch: imports.get(touch.teacher.name) or ask(touch) for touch in touches}


def _asked_about(corpus: Corpus, told: Sequence[Mapping[str, Json]], touches: Sequence[Touch]) -> Iterator[SourceUse]:
    """The sources that are told of, without those of imports, which have a decision of their own."""
    outside = imported_sources(corpus, [one.teacher.name for one in touches if one.teacher.route == "imported"])
    judged = {(one.source.id, one.source.licence) for one in outside}
    for one in told:
        if (one["source_id"], one["licence"]) not in judged:
            yield SourceUse(
                source_id=one["source_id"],
                licence=one["licence"],
                generated_by=tuple(one.get("generated_by", ())),
                lawful_basis=one.get("lawful_basis"),
            )


def check_mix(corpus: Corpus, task: Task, label: str, teachers: Sequence[str]) -> None:
    """Raise PolicyRefused where the sources of rows that lie together, by whom they are, may not be mixed (R12)."""
    outside = tuple(_use_of_source(one.source) for one in imported_sources(corpus, teachers))
    if not outside:
        return  # what one task asks about was judged together
    asked = any(not name.startswith(SCHEME) for name in teachers)
    own = sources_of(task, corpus) if asked else ()
    use, sources = settled(use_of(task), (*own, *outside))
    for reason in about_sources(rights_of(corpus, task).registry, sources, use):
        if reason.outcome == "deny":
            raise PolicyRefused(f"{label} may not be sealed: {reason.rule} {reason.text}. Not legal advice.")


def _use_of_source(source: Source) -> SourceUse:
    return SourceUse(source_id=source.id, licence=source.licence, generated_by=source.generated_by)


def judged_base(corpus: Corpus, task: Task, base: BaseModelSpec) -> Decision:
    """What today's terms say of weights that the task's student begins with."""
    rights, (use, _) = rights_of(corpus, task), settled(use_of(task), ())
    weights = TeacherRoute(
        name=base.model,
        provider=base.provider,
        model=base.model,
        route="self_hosted",
        weights_sha256=base.weights_sha256,
        pinned_terms=base.terms,
    )
    on, waivers = corpus.clock().date(), rights.waivers
    return decide(rights.registry, weights, use, on=on, role="base", waivers=waivers, task=name_of(task))


def settled(use: IntendedUse, sources: Sequence[SourceUse]) -> tuple[IntendedUse, tuple[SourceUse, ...]]:
    """The same without what is about sending personal data: that was judged when it was sent, and now nothing is."""
    return (
        replace(use, personal_data=(), egress="any"),
        tuple(replace(source, personal_data=(), processing_regions=()) for source in sources),
    )


def check_sources(corpus: Corpus, label: str, manifest: Mapping[str, Json], task: Task) -> None:
    """Raise UsageError where a spec is of another task, lacks a source of rows, or names another licence of one."""
    if task.spec.name != manifest["name"]:
        raise UsageError(f"{label} is of task {manifest['name']!r}, and --spec is of task {task.spec.name!r}")
    said = {source.id: source.licence for source in task.spec.sources}
    asked = [name for name in manifest.get("counts", {}).get("teacher", ()) if name.startswith(SCHEME)]
    outside = {one.source.id for one in imported_sources(corpus, asked)} if asked else set[str]()
    for source in manifest.get("sources", ()):
        name, licence = source["source_id"], source["licence"]
        if source.get("records") and name not in said and name not in outside:
            raise UsageError(
                f"{label}: {source['records']} rows are of source {name!r} ({licence}), which {task.located.file} does"
                " not name; write it under sources, or name the spec its records were made with"
            )
        if said.get(name, licence) != licence:
            raise UsageError(
                f"{label}: source {name!r} was under {licence}, and {task.located.file} says {said[name]}; name the"
                " spec its records were made with"
            )


# --- The gate --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is about to be used, and for what."""

    stage: Stage
    name: str
    kind: SubjectKind
    run_id: str
    doing: str
    """In words: exported, trained on, released."""


def gate(
    corpus: Corpus,
    subject: Subject,
    tasks: Sequence[Task],
    touches: Sequence[Touch],
    told: Sequence[Mapping[str, Json]] = (),
) -> tuple[Decision, ...]:
    """What today's policy says of everything that was touched, written down; all of it allows the use.

    ``told`` are the sources that the manifest names. Raises PolicyRefused with rule and clause. In a corpus that may
    only be read, nothing is written down.
    """
    found = (one for task in tasks for one in judged_today(corpus, task, touches, told).values())
    decisions = tuple(dict.fromkeys(found))
    _keep_terms(corpus, tasks)
    note(corpus, subject, decisions)
    check(subject, decisions)
    return decisions


def _keep_terms(corpus: Corpus, tasks: Sequence[Task]) -> None:
    def operation(transaction: Transaction) -> None:
        for task in tasks:
            keep_terms(transaction, registry_of(corpus, task), name_of(task))

    if any(task.spec.terms_files for task in tasks):
        with suppress(CorpusUnwritable):
            corpus.journal.run_now(operation)


def check(subject: Subject, decisions: Sequence[Decision]) -> None:
    """Raise PolicyRefused with rule and clause for the first decision that does not allow it."""
    for one in decisions:
        if one.outcome != "allow":
            raise PolicyRefused(f"{subject.name} may not be {subject.doing}: {explain(one)}{_lost(one)}")


def note(corpus: Corpus, subject: Subject, decisions: Sequence[Decision]) -> None:
    """Write decisions down where they are not what was decided before."""

    def operation(transaction: Transaction) -> None:
        note_decisions(
            transaction,
            subject.run_id,
            subject.stage,
            decisions,
            subject=subject.name,
            subject_kind=subject.kind,
            only_changes=True,
        )

    with suppress(CorpusUnwritable):  # of a corpus on a read-only disk, rows may be exported all the same
        corpus.journal.run_now(operation)


def _lost(decision: Decision) -> str:
    """What to do about terms that no file of today has."""
    if not any(gap.about == "original" for gap in decision.gaps):
        return ""
    return (
        "\nTerms that answers were given under are in no file that was read: name the spec whose terms_files hold them"
        " with --spec, or put them into the corpus with corpusgen terms add."
    )
