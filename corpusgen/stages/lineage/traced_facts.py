"""The small tables of the lineage: who, under which terms, of what and for what, as runs and decisions say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.provenance.seal import manifest_digest
from corpusgen.provenance.terms import DataLicence, Registry, TermsDocument
from corpusgen.records import Json, canonical_json
from corpusgen.stages.lineage.specs_of_runs import Row, SpecOfRun, part_of
from corpusgen.stages.runs import JUDGES
from corpusgen.stages.terms.deciding import TERMS_KEPT, registry_of
from corpusgen.store.answers import Card

STAGES: Final = ("plan", "request", "export", "train", "release")
"""Stages at which the policy decides; other rows of ``decisions`` are no decisions about rights."""
ORIGINAL: Final = "R14"
_UNTOLD: Final = "NOASSERTION"
_FORBIDDING: Final = ("allowed", "conditional", "unclear", "prohibited")
_UNREAD: Final = date(1970, 1, 1)
_WEIGHTS: Final = "weights:sha256:"
_FINAL: Final = ("model_licence", "own")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_VALIDATED: Final = """
select record_id from records where run_id = ? and split = 'validation'
union
select record_id from reuses join records using (record_id) where reuses.run_id = ? and split = 'validation'
order by record_id
"""


@dataclass(kw_only=True)
class Facts:
    """Everything small that lineage knows, read once: each property is a table, or what large ones are joined with."""

    corpus: Corpus
    registry: Registry
    query: Callable[..., list[tuple[Any, ...]]]

    @classmethod
    def of(cls, corpus: Corpus) -> Facts:
        """The facts of a corpus as of now."""
        return cls(corpus=corpus, registry=registry_of(corpus, None), query=corpus.journal.query)

    @cached_property
    def documents(self) -> list[TermsDocument]:
        """Every terms document: of the registry that counts here, and those that the journal kept of earlier files.

        Where two tasks tell different things of one, the stricter counts.
        """
        rows = self.query("select value from meta where name like ? order by name", (f"{TERMS_KEPT}%",))
        kept = [TermsDocument.model_validate_json(row[0]) for row in rows]
        found = {one.id: one for one in sorted(kept, key=_strictness)}
        return [*self.registry.documents, *(found[name] for name in sorted(found.keys() - self.registry.by_id.keys()))]

    # --- runs -------------------------------------------------------------------------------------------------------

    @cached_property
    def runs(self) -> list[Row]:
        """Table ``runs``."""
        return [self._run(one, row) for one, row in zip(self.specs, self._run_rows, strict=True)]

    @cached_property
    def _run_rows(self) -> list[tuple[Any, ...]]:
        return self.query(
            "select run_id, task, spec_digest, spec, facts, status, started_us, ended_us from runs"
            " order by started_us, run_id"
        )

    @cached_property
    def specs(self) -> list[SpecOfRun]:
        """What each run's spec says."""
        read = {row[0]: orjson.loads(row[3]) for row in self._run_rows}
        return [
            SpecOfRun(
                run_no=at,
                run_id=row[0],
                spec=read[row[0]],
                facts=orjson.loads(row[4]),
                parents_spec=read.get(row[0].partition(JUDGES)[0], read[row[0]]),
            )
            for at, row in enumerate(self._run_rows)
        ]

    def _run(self, one: SpecOfRun, row: tuple[Any, ...]) -> Row:
        return {
            "run_no": one.run_no,
            "run_id": one.run_id,
            "task": row[1],
            "spec_digest": _hash(row[2]),
            "prompt_digest": _hash(one.facts.get("prompt_digest") or None),
            "actor": self._actors.get(one.run_id) or self._actors.get(one.decided_in),
            "status": row[5],
            "student_competes": one.use("student_competes", "unknown"),
            "commercial": one.use("commercial", True),
            "student_distribution": one.use("student_distribution", "internal"),
            "started_time": row[6],
            "ended_time": row[7],
        }

    @cached_property
    def _actors(self) -> dict[str, str]:
        """Who ran each run: the user that its calls were booked on, or who imported."""
        rows = self.query("select run_id, scopes from calls group by run_id, scopes")
        found: dict[str, str] = {one["run_id"]: one["by"] for one in self._imports if one.get("by")}
        for run_id, scopes in sorted(rows):
            for scope in scopes.split("\n"):
                if scope.startswith("user:"):
                    found.setdefault(run_id, scope.removeprefix("user:"))
        return found

    @cached_property
    def run_no(self) -> dict[str, int]:
        """The number of each run."""
        return {one.run_id: one.run_no for one in self.specs}

    # --- teachers ---------------------------------------------------------------------------------------------------

    @cached_property
    def cards(self) -> list[tuple[str, Card]]:
        """The stored cards with their ids."""
        rows = self.query("select card_id, card from cards order by card_id")
        return [(row[0], Card.from_json(row[1])) for row in rows]

    @cached_property
    def _teacher_keys(self) -> dict[tuple[str, ...], int]:
        keys = sorted({_teacher_key(card) for _, card in self.cards})
        return {key: at for at, key in enumerate(keys)}

    def teacher_no(self, card: Card) -> int:
        """The number of the teacher on a card."""
        return self._teacher_keys[_teacher_key(card)]

    @cached_property
    def teachers(self) -> list[Row]:
        """Table ``teachers``."""
        told = {teacher["name"]: teacher for one in self.specs for teacher in one.spec.get("teachers") or ()}
        return [
            {
                "teacher_no": at,
                **dict(zip(("teacher_id", "provider", "model", "route", "host", "revision"), key[:6], strict=True)),
                "region": told.get(key[0], {}).get("region"),
                "weights_sha256": _hash(key[6].removeprefix(_WEIGHTS)) if key[6].startswith(_WEIGHTS) else None,
                "unpaid": bool(told.get(key[0], {}).get("unpaid", False)),
            }
            for key, at in self._teacher_keys.items()
        ]

    # --- terms ------------------------------------------------------------------------------------------------------

    @cached_property
    def _sets(self) -> dict[str, tuple[str, ...]]:
        """Every set of terms that something here names, with its documents."""
        found = {card.terms_set_id: card.terms_ids for _, card in self.cards}
        for one in self._decided:
            found.setdefault(one.fields["terms_set_id"], tuple(one.fields["terms_ids"]))
        return dict(sorted(found.items()))

    @cached_property
    def set_no(self) -> dict[str, int]:
        """The number of each set of terms."""
        return {name: at for at, name in enumerate(self._sets)}

    @cached_property
    def terms_sets(self) -> list[Row]:
        """Table ``terms_sets``."""
        return [
            {"terms_set_no": self.set_no[name], "terms_set_id": _hash(name), "terms_id": terms_id}
            for name, ids in self._sets.items()
            for terms_id in sorted({*ids, *(self.registry.by_id[one].id for one in ids if one in self._overridden)})
        ]

    @cached_property
    def _overridden(self) -> set[str]:
        """Documents that one of the corpus or the organisation stands in for; theirs is what it says."""
        return self.registry.overridden.keys() & self.registry.by_id.keys()

    @cached_property
    def terms(self) -> list[Row]:
        """Table ``terms``; what was imported is under the licence of its source, which stands here as well.

        A document that something is under and no file has any more is left out, so that whoever asks is told.
        """
        known = [_terms_row(document) for document in self.documents]
        known += [_overridden_row(name, self.registry.by_id[name]) for name in sorted(self._overridden)]
        named = {terms_id for ids in self._sets.values() for terms_id in ids} - {one["terms_id"] for one in known}
        licences = {name: self.registry.licence_names.get(name) for name in sorted(named)}
        return [*known, *(_licence_row(name, one) for name, one in licences.items() if one is not None)]

    @cached_property
    def terms_reviews(self) -> list[Row]:
        """Table ``terms_reviews``."""
        rows = self.query("select terms_id, review from reviews order by review_id")
        told = [(row[0], orjson.loads(row[1])) for row in rows]
        return [
            *({"terms_id": one.id, "reviewed": one.reviewed} for one in self.documents),
            *(
                {"terms_id": name, "reviewed": _day(one["reviewed"]), "reviewed_by": one.get("by")}
                for name, one in told
            ),
        ]

    @cached_property
    def terms_texts(self) -> list[Row]:
        """Table ``terms_texts``."""
        rows = self.query(
            "select terms_id, sha256, taken_us, text is not null from snapshots order by terms_id, taken_us"
        )
        names = ("terms_id", "text_sha256", "taken_time", "held")
        return [dict(zip(names, (row[0], _hash(row[1]), row[2], bool(row[3])), strict=True)) for row in rows]

    @cached_property
    def terms_duties(self) -> list[Row]:
        """Table ``terms_duties``."""
        return [
            {"terms_id": one.id, "duty": duty.kind, "applies_to": duty.applies_to, "text": duty.text}
            for one in self.documents
            for duty in one.duties
        ]

    @cached_property
    def licences(self) -> list[Row]:
        """Table ``licences``: what the expressions mean that sources, terms and base weights are under."""
        found = {one["licence"] for one in self.sources} | {one["spdx"] for one in self.terms}
        found |= {one["base_licence"] for one in self.students if one["base_licence"]}
        return [self._licence(name) for name in sorted(found)]

    def _licence(self, expression: str) -> Row:
        parts = [part.strip(" ()") for part in re.split(r"\s+(?:AND|OR|WITH)\s+", expression)]
        known = [self.registry.licence_names.get(part) for part in parts]
        duties = {duty.kind for one in self.documents if one.spdx == expression for duty in one.duties}
        told = any(one.spdx == expression for one in self.documents)
        notices = [one.notice for one in known if one is not None and one.notice]
        return {
            "licence": expression,
            "known": expression != _UNTOLD and (told or None not in known),
            "notice": "\n".join(notices) or None,
            **{
                bit: bit in duties or any(getattr(one, bit) for one in known if one is not None)
                for bit in ("attribution", "share_alike", "non_commercial", "no_derivatives")
            },
        }

    # --- sources ----------------------------------------------------------------------------------------------------

    @cached_property
    def _source_facts(self) -> dict[tuple[str, str], Row]:
        """Sources by their id and what is told of them: two tasks may tell different things of one."""
        found = {(one["id"], _told(one)): one for run in self.specs for one in run.sources}
        return dict(sorted(found.items()))

    @cached_property
    def source_no(self) -> dict[tuple[int, str], int]:
        """The number of a source as a run tells of it."""
        numbers = {key: at for at, key in enumerate(self._source_facts)}
        return {(run.run_no, one["id"]): numbers[one["id"], _told(one)] for run in self.specs for one in run.sources}

    @cached_property
    def sources(self) -> list[Row]:
        """Table ``sources``."""
        files = {one["source"]["id"]: one["sha256"] for one in self._imports}
        return [
            {
                "source_no": at,
                "source_id": one["id"],
                **{name: one.get(name) for name in ("title", "locator", "licence", "rightsholder", "acquisition")},
                "sha256": _hash(files.get(one["id"])),
                "acquired": _day(one.get("acquired")),
                **{name: one.get(name) for name in ("copyright_status", "lawful_basis")},
                **{
                    name: sorted(one.get(name) or ())
                    for name in ("personal_data", "processing_regions", "generated_by")
                },
            }
            for at, one in enumerate(self._source_facts.values())
        ]

    @cached_property
    def _imports(self) -> list[Row]:
        return [orjson.loads(row[0]) for row in self.query("select facts from imports order by imported_us, import_id")]

    @cached_property
    def agreements(self) -> list[Row]:
        """Table ``agreements``."""
        found = {one["id"]: one for run in self.specs for one in run.spec.get("agreements") or ()}
        return [
            {
                "agreement_id": name,
                **{part: one.get(part) for part in ("host", "kind", "retention_days")},
                **{part: list(one.get(part) or ()) for part in ("classes", "regions")},
                **{part: _day(one.get(part)) for part in ("valid_from", "valid_until")},
            }
            for name, one in sorted(found.items())
        ]

    # --- decisions --------------------------------------------------------------------------------------------------

    @cached_property
    def _decided(self) -> list[_Decided]:
        rows = self.query(
            "select decision_id, run_id, stage, subject, outcome, decision, decided_us from decisions"
            " where stage in (?, ?, ?, ?, ?) order by decision_id",
            STAGES,
        )
        return [_Decided(no=at, row=row[:5], fields=orjson.loads(row[5]), us=row[6]) for at, row in enumerate(rows)]

    @cached_property
    def decisions(self) -> list[Row]:
        """Table ``decisions``."""
        return [
            {
                "decision_no": one.no,
                "run_no": self.run_no.get(one.row[1]),
                "stage": one.row[2],
                "subject_kind": one.fields.get("subject_kind", "teacher"),
                "subject": one.row[3],
                "role": one.fields.get("role"),
                "outcome": one.row[4],
                "estimated_microusd": one.fields.get("estimated_microusd"),
                "policy_digest": _hash(one.fields.get("policy_digest")),
                "registry_digest": _hash(one.fields.get("registry_digest")),
                "decided_time": one.us,
            }
            for one in self._decided
        ]

    @cached_property
    def decision_reasons(self) -> list[Row]:
        """Table ``decision_reasons``."""
        names = ("rule", "terms_id", "outcome", "text")
        return [
            {"decision_no": one.no, **dict(zip(names, reason[:4], strict=True))}
            for one in self._decided
            for reason in one.fields["reasons"]
        ]

    @cached_property
    def decision_waivers(self) -> list[Row]:
        """Table ``decision_waivers``."""
        return [
            {"decision_no": one.no, "waiver_id": waiver}
            for one in self._decided
            for waiver in one.fields.get("waivers") or ()
        ]

    @cached_property
    def waivers(self) -> list[Row]:
        """Table ``waivers``."""
        rows = self.query("select waiver_id, waiver, ended_us from waivers order by waiver_id")
        return [_waiver_row(row[0], orjson.loads(row[1]), row[2]) for row in rows]

    @cached_property
    def checked(self) -> dict[tuple[int, str], str]:
        """The set of terms that a run last checked of a teacher, by the run's number and the teacher's name."""
        found: dict[str, dict[str, str]] = {}
        for one in self._decided:
            if one.row[2] == "plan" and not any(reason[0] == ORIGINAL for reason in one.fields["reasons"]):
                found.setdefault(one.row[1], {})[one.row[3]] = one.fields["terms_set_id"]
        return {
            (run.run_no, teacher): terms_set
            for run in self.specs
            for teacher, terms_set in found.get(run.decided_in, {}).items()
        }

    # --- datasets and students --------------------------------------------------------------------------------------

    @cached_property
    def _dataset_rows(self) -> list[tuple[Any, ...]]:
        return self.query(
            "select name, version, status, manifest, sealed_us from datasets order by name, cast(version as integer)"
        )

    @cached_property
    def dataset_no(self) -> dict[str, int]:
        """The number of each version of a dataset, by ``name-version``."""
        sealed = [f"{row[0]}-{row[1]}" for row in self._dataset_rows]
        return {label: at for at, label in enumerate((*sealed, *self._calibrated.values()))}

    @cached_property
    def _calibrated(self) -> dict[str, str]:
        """Runs on whose validation answers a student's labels were calibrated, and what those answers are called."""
        tasks = {row[0]: row[1] for row in self._run_rows}
        runs = sorted({row[1] for row in self._student_rows if row[3].get("calibration") and row[1] in tasks})
        return {run_id: f"{tasks[run_id]}-validation-{run_id}" for run_id in runs}

    def validated(self) -> Iterator[tuple[int, str, bytes]]:
        """The validation answers that a student's labels were calibrated on: number of what they make up, split, id."""
        for run_id, label in self._calibrated.items():
            for (record_id,) in self.query(_VALIDATED, (run_id, run_id)):
                yield self.dataset_no[label], "validation", record_id

    @cached_property
    def datasets(self) -> list[Row]:
        """Table ``datasets``."""
        found = [self._dataset(at, *row) for at, row in enumerate(self._dataset_rows)]
        started = {row[0]: row[6] for row in self._run_rows}
        return found + [
            {
                "dataset_no": self.dataset_no[label],
                "name": label.removesuffix(f"-{run_id}"),
                "version": run_id,
                "status": "validation",
                "created_time": started[run_id],
            }
            for run_id, label in self._calibrated.items()
        ]

    def _dataset(self, no: int, name: str, number: str, status: str, text: str, at_us: int) -> Row:
        told = orjson.loads(text)
        sealed, revoked = told.get("seal"), part_of(told, "revoked")
        licences = sealed and sealed["counts"].get("licence")
        return {
            "dataset_no": no,
            "name": name,
            "version": number,
            "status": status,
            "manifest_sha256": _hash(revoked.get("manifest_sha256") or (sealed and manifest_digest(sealed))),
            "merkle_root": _hash(sealed["merkle"]["root"]) if sealed and "merkle" in sealed else None,
            "effective_licence": (sealed and sealed.get("licence_expression")) or _together(licences or ()) or None,
            "created_time": at_us,
            "revoked_time": _moment(revoked.get("revoked_time")),
        }

    @cached_property
    def _student_rows(self) -> list[tuple[Any, ...]]:
        rows = self.query(
            "select student_id, run_id, dataset, facts, trained_us from students order by trained_us, student_id"
        )
        return [(*row[:3], orjson.loads(row[3]), row[4]) for row in rows]

    @cached_property
    def student_no(self) -> dict[str, int]:
        """The number of each student."""
        return {row[0]: at for at, row in enumerate(self._student_rows)}

    @cached_property
    def students(self) -> list[Row]:
        """Table ``students``."""
        return [self._student(at, *row) for at, row in enumerate(self._student_rows)]

    def _student(self, no: int, name: str, run_id: str, _: str, facts: Row, at_us: int) -> Row:
        base, use = self._base(run_id, self._released_base.get(name)), part_of(facts, "intended_use")
        released = [row["withdrawn_time"] for row in self.releases if row["student_no"] == no]
        return {
            "student_no": no,
            "student_id": name,
            "run_no": self.run_no.get(run_id),
            "base_model": base.get("model"),
            "base_licence": base.get("licence_expression"),
            "base_terms": list(base.get("terms_ids") or base.get("terms") or ()),
            "weights_sha256": _hash(self._weights.get(name)),
            "student_competes": use.get("student_competes", "unknown"),
            "commercial": use.get("commercial", True),
            "student_distribution": use.get("student_distribution", "internal"),
            "status": "withdrawn" if released and None not in released else "trained",
            "trained_time": at_us,
        }

    @cached_property
    def _released_base(self) -> dict[str, Row]:
        """The weights that students began with, as those who released them say."""
        told = [orjson.loads(row[0]) for row in self.query("select release from releases order by released_us")]
        return {one["student_id"]: one["base"] for one in told if one.get("base")}

    def _base(self, run_id: str, released: Row | None) -> Row:
        """The weights that a run's student begins with, and what was decided about them when it was trained."""
        spec: Mapping[str, Json] = next((one.spec for one in self.specs if one.run_id == run_id), {})
        base = part_of(part_of(spec, "student"), "base") or released or {}
        decided = [one.fields for one in self._decided if (one.row[1], one.row[3]) == (run_id, base.get("model"))]
        about = [fields for fields in decided if fields.get("subject_kind") == "base"]
        return {**base, **(about[-1] if about else {})}

    @cached_property
    def _weights(self) -> dict[str, str]:
        """The digest of each student's weights, as the ledger has it."""
        rows = self.query("select payload from events where kind = 'student_trained' and payload is not null")
        told = [orjson.loads(row[0]) for row in rows]
        return {
            one["student_id"]: found
            for one in told
            for path, found in part_of(one, "files").items()
            if path.endswith(".safetensors")
        }

    @cached_property
    def student_datasets(self) -> list[Row]:
        """Table ``student_datasets``: what each student took a dataset for."""
        return [
            {"student_no": at, "dataset_no": self.dataset_no[label], "role": role, "first_used_time": row[4]}
            for at, row in enumerate(self._student_rows)
            for label in dict.fromkeys((row[2], *(one["dataset"] for one in row[3].get("datasets", ()))))
            if label in self.dataset_no
            for role in self._used_for(label)
        ] + [
            {
                "student_no": at,
                "dataset_no": self.dataset_no[self._calibrated[row[1]]],
                "role": "calibration",
                "first_used_time": row[4],
            }
            for at, row in enumerate(self._student_rows)
            if row[3].get("calibration") and row[1] in self._calibrated
        ]

    def _used_for(self, dataset: str) -> Iterator[str]:
        yield "train"
        if dataset in self._filtered:
            yield "selection"

    @cached_property
    def _filtered(self) -> set[str]:
        """Versions from which a judge's score dropped something: what is left was selected by that judge as well."""
        rows = self.query("select distinct dataset, version from findings where stage = 'judge' and kept = 0")
        return {f"{name}-{number}" for name, number in rows}

    @cached_property
    def releases(self) -> list[Row]:
        """Table ``releases``."""
        rows = self.query(
            "select release, student_id, released_us, withdrawn_us from releases order by released_us, release_id"
        )
        known = [(orjson.loads(row[0]), *row[1:]) for row in rows if row[1] in self.student_no]
        return [
            {
                "release_id": told["release_id"],
                "student_no": self.student_no[student],
                "name": told.get("name") or student,
                "approver": told.get("approver") or "unknown",
                "student_distribution": part_of(told, "intended_use").get("student_distribution", "weights_released"),
                "policy_digest": _hash(told.get("policy_digest")),
                "registry_digest": _hash(told.get("registry_digest")),
                "waiver_ids": list(told.get("waivers") or ()),
                "released_time": released_us,
                "withdrawn_time": withdrawn_us,
            }
            for told, student, released_us, withdrawn_us in known
        ]

    @cached_property
    def erasures(self) -> list[Row]:
        """Table ``erasures``, those that came to their end."""
        return [
            {
                "erasure_no": at,
                "erasure_id": str(told.get("erasure_id", row)),
                "selector": told.get("selector", "record"),
                "subject": _subject(told),
                "erased_by": told.get("by") or "unknown",
                "reason": told.get("reason") or "",
                "records": _count(told.get("records")),
                **{part: _names(told.get(part)) for part in ("datasets", "students")},
                "releases": _names(told.get("released")),
                "counted": told.get("touched_counts") is not None,
                "erased_time": at_us,
            }
            for at, (row, told, at_us) in enumerate(self._erasure_rows)
        ]

    @cached_property
    def _erasure_rows(self) -> list[tuple[Any, ...]]:
        """Those that have cut: what is left to do then is to clean up."""
        found = self.query("select erasure_id, erasure, erased_us from erasures order by erasure_id")
        read = [(row[0], orjson.loads(row[1]), row[2]) for row in found]
        return [one for one in read if part_of(one[1], "unfinished").get("stage") != "begun"]

    @cached_property
    def erased_uses(self) -> list[Row]:
        """Table ``erased_uses``, as each erasure counted before its cut."""
        return [
            {
                "erasure_no": at,
                "dataset_no": self.dataset_no.get(one.get("dataset")),
                "teacher_no": self._teacher_keys.get(tuple(one.get("teacher") or ())),
                "terms_set_no": self.set_no.get(one.get("terms_set_id")),
                **{name: one.get(name) for name in ("about", "split", "kind", "role", "model_served", "source_id")},
                **{name: one[name] for name in ("records", "by_parents", "input_tokens", "output_tokens")},
            }
            for at, (_, told, _) in enumerate(self._erasure_rows)
            for one in told.get("touched_counts") or ()
        ]

    @cached_property
    def names_of(self) -> tuple[dict[int, tuple[str, ...]], dict[int, str]]:
        """Teachers and sets of terms by their numbers, as they are called in every build."""
        teachers = {no: key for key, no in self._teacher_keys.items()}
        return teachers, {no: name for name, no in self.set_no.items()}

    @cached_property
    def checkpoints(self) -> list[Row]:
        """Table ``checkpoints``."""
        rows = self.query("select size, root, envelope, signed_us from checkpoints order by size")
        return [{"size": row[0], "root": row[1], "key_id": _key_id(row[2]), "signed_time": row[3]} for row in rows]

    @cached_property
    def events(self) -> list[Row]:
        """Table ``events``."""
        rows = self.query("select seq, kind, commitment, nonce is null, occurred_us from events order by seq")
        names = ("seq", "kind", "commitment", "erased", "occurred_time")
        return [dict(zip(names, (*row[:3], bool(row[3]), row[4]), strict=True)) for row in rows]

    # --- agents -----------------------------------------------------------------------------------------------------

    @cached_property
    def agents(self) -> list[Row]:
        """Table ``agents``, each name once: as a provider, else an organisation, else a person."""
        software = f"corpusgen {version('corpusgen-distill')}"
        found = {
            software: "software",
            **dict.fromkeys(sorted(_told_names(self._people())), "person"),
            **dict.fromkeys(sorted(_told_names(one["rightsholder"] for one in self.sources)), "organisation"),
            **dict.fromkeys(
                sorted({one["provider"] for one in (*self.teachers, *self.terms) if one["provider"] != "unknown"}),
                "provider",
            ),
        }
        return [{"agent_id": name, "kind": kind, "name": name} for name, kind in found.items()]

    def _people(self) -> Iterator[str | None]:
        yield from (one["actor"] for one in self.runs)
        yield from (one["granted_by"] for one in self.waivers)
        yield from (one["approver"] for one in self.releases)
        yield from (one["erased_by"] for one in self.erasures)
        yield from (one.get("reviewed_by") for one in self.terms_reviews)


@dataclass(frozen=True, kw_only=True)
class _Decided:
    no: int
    row: tuple[Any, ...]
    """``decision_id, run_id, stage, subject, outcome``."""
    fields: Row
    us: int


def _told_names(names: Iterable[str | None]) -> set[str]:
    return {name for name in names if name}


def _teacher_key(card: Card) -> tuple[str, ...]:
    return (card.teacher, card.provider, card.model, card.route, card.host, card.revision, card.identity)


def _terms_row(one: TermsDocument) -> Row:
    return {
        "terms_id": one.id,
        **{name: getattr(one, name) for name in ("provider", "title", "version", "kind", "effective", "superseded")},
        **{name: getattr(one, name) for name in ("outputs_train", "outputs_train_competing", "spdx", "confidence")},
        "reviewed": one.reviewed,
        "review_expires": one.kind not in _FINAL,
        "text_sha256": _hash(one.text_sha256),
        "source": one.source,
        "quote": one.quote or None,
        "quote_location": one.quote_location or None,
    }


def _strictness(one: TermsDocument) -> list[int]:
    return [_FORBIDDING.index(value) for value in (one.outputs_train, one.outputs_train_competing)]


def _overridden_row(name: str, now: TermsDocument) -> Row:
    """A document that another one stands in for: it says what that one says, and where to look."""
    gone = dict.fromkeys(("effective", "superseded", "text_sha256", "quote", "quote_location"))
    words = {"title": f"{name}, for which {now.id} stands in", "version": "overridden"}
    return _terms_row(now) | gone | words | {"terms_id": name}


def _licence_row(name: str, one: DataLicence) -> Row:
    return {
        "terms_id": name,
        "provider": "unknown",
        "title": one.spdx,
        "version": "as its name says",
        "kind": "data_licence",
        "outputs_train": one.train,
        "outputs_train_competing": one.train,
        "spdx": one.spdx,
        "confidence": "high",
        "reviewed": _UNREAD,
        "review_expires": False,
        "source": one.source or "not told",
    }


def _waiver_row(name: str, told: Row, ended_us: int | None) -> Row:
    return {
        "waiver_id": name,
        "terms_ids": list(told["terms_ids"]),
        "rules": list(told.get("rules") or ()),
        **{part: told.get(part) or "" for part in ("task", "teacher", "granted_by", "reason")},
        "evidence_sha256": _hash(told.get("evidence_sha256")),
        "granted": _day(told["granted"]),
        "expires": _day(told["expires"]),
        "ended_time": ended_us,
    }


def _told(source: Row) -> str:
    """What is told of a source, apart from how its notice is called here."""
    return canonical_json({name: value for name, value in source.items() if name != "notice"}).decode()


def _subject(told: Row) -> str | None:
    """What was erased: a source by its name; of a record or a person, what was committed to."""
    found = told.get("source_id" if told.get("selector") == "source" else "subject_commitment")
    return None if found is None else str(found)


def _names(value: Json) -> list[str]:
    """Names in a list, whether it holds them bare or with more about each."""
    named = ("label", "student_id", "release_id", "id", "name")
    return [next((str(one[name]) for name in named if name in one), str(one)) if isinstance(one, dict) else str(one)
            for one in value or ()]  # fmt: skip


def _count(value: Json) -> int:
    return len(value) if isinstance(value, list) else int(value or 0)


def _together(licences: Iterable[str]) -> str:
    """What holds for all rows together."""
    every = sorted(licences)
    return every[0] if len(every) == 1 else " AND ".join(f"({one})" if " " in one else one for one in every)


def _key_id(envelope: str) -> str | None:
    try:
        return str(orjson.loads(envelope)["signatures"][0]["keyid"])
    except (ValueError, KeyError, IndexError, TypeError):  # a checkpoint that nobody signed has no key
        return None


def _hash(value: str | None) -> bytes | None:
    """32 bytes of a digest in hex; a name that is no digest is digested, so that it still tells itself apart."""
    if not value:
        return None
    return bytes.fromhex(value) if _HEX.fullmatch(value) else sha256(value.encode()).digest()


def _day(value: Json) -> date | None:
    return value if value is None or isinstance(value, date) else date.fromisoformat(str(value)[:10])


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)
