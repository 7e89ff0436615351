"""The answers to the twenty questions worked out from the planted facts in plain Python, without any SQL.

Each ``qNN`` gives the rows the question must give, in any order. Nothing here reads the views or the queries.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
Rows = list[tuple[Any, ...]]
TEXT = {"response", "rationale", "paraphrase", "simulated_user"}


@dataclass
class Facts:
    """The tables as rows, and what follows from them."""

    tables: Mapping[str, pa.Table]
    _ancestors: dict[int, frozenset[int]] = field(default_factory=dict)
    _rows: dict[str, list[Row]] = field(default_factory=dict)

    def rows(self, name: str) -> list[Row]:
        if name not in self._rows:
            self._rows[name] = self.tables[name].to_pylist()
        return self._rows[name]

    def by(self, name: str, key: str) -> dict[Any, Row]:
        return {row[key]: row for row in self.rows(name)}

    def grouped(self, name: str, key: str) -> dict[Any, list[Row]]:
        found: dict[Any, list[Row]] = defaultdict(list)
        for row in self.rows(name):
            found[row[key]].append(row)
        return found

    @cached_property
    def parents(self) -> dict[int, list[Row]]:
        return self.grouped("record_parents", "record_no")

    @cached_property
    def asked(self) -> dict[int, list[Row]]:
        return self.grouped("record_requests", "record_no")

    @cached_property
    def sources_of(self) -> dict[int, list[Row]]:
        return self.grouped("record_sources", "record_no")

    @cached_property
    def requests(self) -> dict[int, Row]:
        return self.by("requests", "request_no")

    @cached_property
    def teachers(self) -> dict[int, Row]:
        return self.by("teachers", "teacher_no")

    @cached_property
    def terms(self) -> dict[str, Row]:
        return self.by("terms", "terms_id")

    @cached_property
    def documents(self) -> dict[int, list[str]]:
        return {
            number: sorted(row["terms_id"] for row in rows)
            for number, rows in self.grouped("terms_sets", "terms_set_no").items()
        }

    @cached_property
    def members(self) -> dict[int, list[int]]:
        rows = self.grouped("dataset_records", "dataset_no")
        return {number: [row["record_no"] for row in rows.get(number, ())] for number in self.labels}

    @cached_property
    def labels(self) -> dict[int, str]:
        return {row["dataset_no"]: f"{row['name']}-{row['version']}" for row in self.rows("datasets")}

    def dataset(self, label: str) -> int:
        return next(number for number, name in self.labels.items() if name == label)

    def student(self, name: str) -> Row:
        return next(row for row in self.rows("students") if row["student_id"] == name)

    def source(self, name: str) -> Row:
        return next(row for row in self.rows("sources") if row["source_id"] == name)

    def governing(self, request: Row) -> list[str]:
        """The documents that govern an answer: the origin's, where it was used again."""
        origin = request["origin_terms_set_no"]
        return self.documents.get(request["terms_set_no"] if origin is None else origin, [])

    def line(self, record: int) -> frozenset[int]:
        """The record and everything it was made from."""
        if record not in self._ancestors:
            found, waiting = {record}, [record]
            while waiting:
                for row in self.parents.get(waiting.pop(), ()):
                    if row["parent_no"] not in found:
                        found.add(row["parent_no"])
                        waiting.append(row["parent_no"])
            self._ancestors[record] = frozenset(found)
        return self._ancestors[record]

    def uses(self, record: int) -> Iterable[tuple[bool, str, Row]]:
        """Every request of the record and of what it was made from: by a parent, in which role, which request."""
        for one in self.line(record):
            for row in self.asked.get(one, ()):
                yield one != record, row["role"], self.requests[row["request_no"]]

    def held(self, record: int) -> set[int]:
        """The sources in the record and in what it was made from."""
        return {row["source_no"] for one in self.line(record) for row in self.sources_of.get(one, ())}

    def derived(self, source: int) -> dict[int, bool]:
        """The records that hold a source, and whether only through a parent."""
        own = {row["record_no"] for row in self.rows("record_sources") if row["source_no"] == source}
        every = [row["record_no"] for row in self.rows("records") if self.line(row["record_no"]) & own]
        return {record: record not in own for record in every}

    def taken(self, about: str, dataset: int | None) -> list[Row]:
        """What an erasure took of a dataset (None: of all), with its name."""
        names = {row["erasure_no"]: row["erasure_id"] for row in self.rows("erasures")}
        rows = [row for row in self.rows("erased_uses") if (row["about"], row["dataset_no"]) == (about, dataset)]
        return [row | {"erasure": names[row["erasure_no"]], "origin_terms_set_no": None} for row in rows]

    def theirs(self, provider: str, request: Row) -> bool:
        names = (self.terms[name]["provider"] for name in self.governing(request) if name in self.terms)
        return self.teachers[request["teacher_no"]]["provider"] == provider or provider in names

    def seen_by(self, student_no: int) -> list[tuple[int, str]]:
        rows = self.rows("student_datasets")
        return [(row["dataset_no"], row["role"]) for row in rows if row["student_no"] == student_no]


def q01(facts: Facts, provider: str, terms: str | None = None) -> Rows:
    found = []
    for release in facts.rows("releases"):
        student = facts.by("students", "student_no")[release["student_no"]]
        for dataset, used_for in facts.seen_by(release["student_no"]):
            counted: Counter[tuple[str, str]] = Counter()
            for record in facts.members[dataset]:
                hits = {
                    (role, ", ".join(facts.governing(request)))
                    for _, role, request in facts.uses(record)
                    if facts.theirs(provider, request) and (terms is None or terms in facts.governing(request))
                }
                counted.update(hits)
            head = (release["release_id"], release["name"], student["student_id"], release["released_time"])
            every: list[Any] = [(*key, number, None) for key, number in counted.items()]
            every += [
                (one["role"], ", ".join(facts.governing(one)), one["records"], one["erasure"])
                for one in facts.taken("use", dataset)
                if facts.theirs(provider, one) and (terms is None or terms in facts.governing(one))
            ]
            where = (release["withdrawn_time"], facts.labels[dataset], used_for)
            found += [(*head, *where, *one) for one in every]
    return found


def q02(facts: Facts, student: str) -> Rows:
    row, found = facts.student(student), []
    values = ["outputs_train"] + (["outputs_train_competing"] if row["student_competes"] != "no" else [])
    barred = {name for name, terms in facts.terms.items() if "prohibited" in [terms[value] for value in values]}
    for dataset, used_for in facts.seen_by(row["student_no"]):
        hits: dict[tuple[str, int, str | None], dict[int, bool]] = defaultdict(dict)
        for record in facts.members[dataset]:
            for by_parent, role, request in facts.uses(record):
                for name in _barring(facts, barred, request):
                    only = hits[role, request["teacher_no"], name]
                    only[record] = by_parent and only.get(record, True)
        every: list[Any] = [(*key, len(records), sum(records.values()), None) for key, records in hits.items()]
        every += [
            (one["role"], one["teacher_no"], name, one["records"], one["by_parents"], one["erasure"])
            for one in facts.taken("use", dataset)
            for name in _barring(facts, barred, one)
        ]
        for role, teacher_no, name, count, by_parents, erasure in every:
            teacher = facts.teachers[teacher_no]
            waivers = ", ".join(one["waiver_id"] for one in facts.rows("waivers") if name in one["terms_ids"])
            head = (facts.labels[dataset], used_for, role, teacher["provider"], teacher["teacher_id"], name)
            finding = "prohibited" if name in facts.terms else "terms not known here"
            found.append((*head, waivers or None, count, by_parents, finding, erasure))
    return found


def _barring(facts: Facts, barred: set[str], request: Row) -> list[str | None]:
    """Documents that forbid it, those nobody knows, and None where there is none at all."""
    documents = facts.governing(request)
    return [name for name in documents if name in barred or name not in facts.terms] if documents else [None]


def q03(facts: Facts, dataset: str, student: str) -> Rows:
    bearing: set[tuple[str, str]] = set()
    used: set[int] = set()
    for record in facts.members[facts.dataset(dataset)]:
        used |= facts.held(record)
        for _, _, request in facts.uses(record):
            bearing |= {(name, "yes") for name in facts.governing(request)}
    row = facts.student(student)
    bearing |= {(name, "base") for name in row["base_terms"]}
    sources = [one for one in facts.rows("sources") if one["source_no"] in used]
    bearing |= {(name, "notice") for one in sources for name in one["generated_by"]}
    found = {
        (duty["duty"], duty["applies_to"], duty["terms_id"], duty["text"], binds)
        for name, binds in bearing
        for duty in facts.rows("terms_duties")
        if duty["terms_id"] == name
    }
    named = [(one["source_id"], one["licence"], "yes") for one in sources]
    named += [(f"the base weights of {student}", row["base_licence"], "base")] if row["base_licence"] else []
    return [*found, *_licence_duties(facts, named)]


def _licence_duties(facts: Facts, named: list[tuple[str, str, str]]) -> Rows:
    found = []
    for licence, binds in {(licence, binds) for _, licence, binds in named}:
        says = facts.by("licences", "licence")[licence]
        credited = ", ".join(sorted(name for name, *rest in named if rest == [licence, binds]))
        texts = {
            "attribution": says["attribution"] and f"credit {credited}",
            "notice_file": says["notice"],
            "share_alike": says["share_alike"] and f"publish what derives from it under {licence}",
            "non_commercial": says["non_commercial"] and "non-commercial use only",
            "no_derivatives": says["no_derivatives"] and "no derivatives may be passed on",
        }
        found += [(duty, "dataset", licence, text, binds) for duty, text in texts.items() if text]
    return found


def q04(facts: Facts, dataset: str) -> Rows:
    number = facts.dataset(dataset)
    members, records = facts.members[number], facts.by("records", "record_no")
    licence_of = {one["source_no"]: one["licence"] for one in facts.rows("sources")}
    sources: dict[str, tuple[set[int], set[Any]]] = defaultdict(lambda: (set(), set()))
    terms: dict[str, tuple[set[int], set[Any]]] = defaultdict(lambda: (set(), set()))
    for record in members:
        for source in facts.held(record):
            sources[licence_of[source]][0].add(record)
            sources[licence_of[source]][1].add(source)
        for _, _, request in facts.uses(record):
            for name in facts.governing(request):
                terms[facts.terms[name]["spdx"]][0].add(record)
                terms[facts.terms[name]["spdx"]][1].add(name)
    stored = Counter(records[record]["licence"] for record in members)
    rows: list[tuple[str, str, int, int | None]] = [
        *(("source", name, len(held), len(through)) for name, (held, through) in sources.items()),
        *(("terms", name, len(held), len(through)) for name, (held, through) in terms.items()),
        *(("stored with the record", name, count, None) for name, count in stored.items()),
        ("whole, as found", " AND ".join(sorted({*sources, *terms})), len(members), None),
    ]
    sealed = facts.by("datasets", "dataset_no")[number]["effective_licence"]
    rows.append(("whole, as sealed", sealed, len(members), None))
    says = facts.by("licences", "licence")
    bits = ("known", "share_alike", "non_commercial", "no_derivatives", "attribution")
    return [(kind, name, *(says.get(name, {}).get(bit) for bit in bits), *rest) for kind, name, *rest in rows]


def q05(facts: Facts, provider: str | None = None, since: str = "2000-01-01", until: str = "2100-01-01") -> Rows:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for request in facts.rows("requests"):
        teacher = facts.teachers[request["teacher_no"]]
        if not (since <= request["sent_time"].date().isoformat() <= until) or provider not in (
            None,
            teacher["provider"],
        ):
            continue
        region = request["region"] or teacher["region"]
        for kind in (request["personal_data"] or "").split(","):
            if kind:
                fits = [one for one in facts.rows("agreements") if _covers(one, teacher, region, kind, request)]
                for agreement in fits or [{"agreement_id": None, "kind": None, "retention_days": None}]:
                    about = (teacher["provider"], teacher["teacher_id"], teacher["host"], region, kind)
                    key = (*about, agreement["agreement_id"], agreement["kind"], agreement["retention_days"])
                    found[(*key, teacher["unpaid"])].append(request)
    rows = []
    for key, requests in found.items():
        times = [one["sent_time"] for one in requests if not one["from_cache"]]
        rows.append((*key, len(times), len(requests) - len(times), min(times, default=None), max(times, default=None)))
    return rows


def _covers(agreement: Row, teacher: Row, region: str | None, kind: str, request: Row) -> bool:
    return (
        agreement["host"] == teacher["host"]
        and (not agreement["classes"] or kind in agreement["classes"])
        and (not agreement["regions"] or region in agreement["regions"])
        and agreement["valid_from"] <= request["sent_time"].date() <= agreement["valid_until"]
    )


def q06(facts: Facts, source: str, listed: int = 20) -> Rows:
    records = facts.by("records", "record_no")
    live = facts.derived(facts.source(source)["source_no"])
    gone = [one for one in facts.taken("source", None) if one["source_id"] == source]
    erased = {
        number: sum(one["records"] for one in facts.taken("source", number) if one["source_id"] == source)
        for number in facts.members
    }
    names = sorted((records[one]["record_id"].hex(), only, records[one]["shard"]) for one, only in live.items())
    shards: dict[str, list[bool]] = defaultdict(list)
    for one, only in live.items():
        shards[records[one]["shard"]].append(only)
    inside = {number: len(live.keys() & set(members)) + erased[number] for number, members in facts.members.items()}
    status = {row["dataset_no"]: row["status"] for row in facts.rows("datasets")}
    rows: Rows = [
        ("live records", source, len(live), sum(live.values()), ""),
        (
            *("erased records", source, sum(one["records"] for one in gone), sum(one["by_parents"] for one in gone)),
            "only their number is known",
        ),
        *(("record", name, 1, int(only), shard) for name, only, shard in names[:listed]),
        *(("shard", name, len(only), sum(only), "") for name, only in shards.items()),
        *(
            ("dataset", facts.labels[no], count, None, status[no] + f", erased: {erased[no]}" * bool(erased[no]))
            for no, count in inside.items()
            if count
        ),
    ]
    for student in facts.rows("students"):
        seen = [(number, role) for number, role in facts.seen_by(student["student_no"]) if inside[number]]
        if seen:
            most = max(inside[number] for number, _ in seen)
            roles = ", ".join(sorted({role for _, role in seen}))
            rows.append(("student", student["student_id"], most, None, f"retrain or retire: used for {roles}"))
            for release in facts.rows("releases"):
                if release["student_no"] == student["student_no"]:
                    said = "withdrawn" if release["withdrawn_time"] else "released"
                    rows.append(("release", f"{release['release_id']} {release['name']}", most, None, said))
    for erasure in facts.rows("erasures"):
        if erasure["subject"].partition("#")[0] == source:
            remark = f"datasets revoked: {', '.join(erasure['datasets'])}; students to retrain or retire: old"
            rows.append(("erasure", erasure["erasure_id"], erasure["records"], None, remark))
    return rows


def q07(facts: Facts, record: str) -> Rows:
    number = next(row["record_no"] for row in facts.rows("records") if row["record_id"].hex() == record)
    rows = []
    for by_parent, role, request in facts.uses(number):
        sent = request["origin_sent_time"] or request["sent_time"]
        teacher = facts.teachers[request["teacher_no"]]["teacher_id"]
        head = (role, teacher, request["request_key"].hex(), sent, request["from_cache"])
        for name in facts.governing(request):
            terms = facts.terms[name]
            about = (name, *(terms[column] for column in ("title", "version", "effective", "superseded")))
            rows.append((*head, *about, *_text_of(facts, terms, sent), by_parent))
        if not facts.governing(request):
            rows.append((*head, *(None,) * 7, False, by_parent))
    return rows


def _text_of(facts: Facts, terms: Row, sent: datetime) -> tuple[str | None, datetime | None, bool]:
    texts = sorted(
        (one for one in facts.rows("terms_texts") if one["terms_id"] == terms["terms_id"]),
        key=lambda one: one["taken_time"],
    )
    before = [one for one in texts if one["taken_time"] <= sent]
    if before:
        return before[-1]["text_sha256"].hex(), before[-1]["taken_time"], before[-1]["held"]
    if terms["text_sha256"] is not None:
        return terms["text_sha256"].hex(), None, False
    if texts:
        return texts[0]["text_sha256"].hex(), texts[0]["taken_time"], texts[0]["held"]
    return None, None, False


def q08(facts: Facts, days: int = 90) -> Rows:
    found: dict[tuple[str, str, str], list[datetime]] = defaultdict(list)
    for request in facts.rows("requests"):
        for name in [] if request["from_cache"] else facts.documents.get(request["terms_set_no"], []):
            problem = _outdated(facts, facts.terms[name], request["sent_time"].date(), days)
            if problem:
                teacher = facts.teachers[request["teacher_no"]]["teacher_id"]
                found[teacher, name, problem].append(request["sent_time"])
    return [
        (
            *(teacher, name, problem, len(times), min(times), max(times)),
            *(facts.terms[name][column] for column in ("superseded", "effective", "reviewed")),
        )
        for (teacher, name, problem), times in found.items()
    ]


def _outdated(facts: Facts, terms: Row, on: date, days: int) -> str | None:
    if terms["superseded"] and terms["superseded"] <= on:
        return "superseded"
    if terms["effective"] and terms["effective"] > on:
        return "not yet in force"
    if not terms["review_expires"]:
        return None
    reviews = [one["reviewed"] for one in facts.rows("terms_reviews") if one["terms_id"] == terms["terms_id"]]
    known = [day for day in reviews if day <= on]
    if not known:
        return "no review before it is known"
    return "review too old" if max(known) < on - timedelta(days=days) else None


def q09(facts: Facts, on: date, days: int = 90) -> Rows:
    rows: Rows = []
    for waiver in facts.rows("waivers"):
        if waiver["expires"] > on + timedelta(days=days):
            continue
        head = (waiver["waiver_id"], waiver["granted_by"], waiver["expires"], (waiver["expires"] - on).days, False)
        hanging = _hanging(facts, waiver["waiver_id"]) or [(None, None, None)]
        rows += [(*head, ", ".join(waiver["terms_ids"]), *one) for one in hanging]
    return rows


def _hanging(facts: Facts, waiver: str) -> Rows:
    lifted = {row["decision_no"] for row in facts.rows("decision_waivers") if row["waiver_id"] == waiver}
    decided = [row for row in facts.rows("decisions") if row["decision_no"] in lifted]
    asked = {(row["run_no"], row["subject"]) for row in decided if row["subject_kind"] == "teacher"}
    touched: dict[int, set[int]] = {row["run_no"]: set() for row in decided if row["run_no"] is not None}
    for row in facts.rows("record_requests"):
        request = facts.requests[row["request_no"]]
        if (request["run_no"], facts.teachers[request["teacher_no"]]["teacher_id"]) in asked:
            touched[request["run_no"]].add(row["record_no"])
    runs = facts.by("runs", "run_no")
    every = set().union(*touched.values()) if touched else set()
    inside = {number: len(every.intersection(members)) for number, members in facts.members.items()}
    rows: Rows = [("run", runs[number]["run_id"], len(records)) for number, records in touched.items()]
    rows += [("dataset", facts.labels[number], count) for number, count in inside.items() if count]
    for student in facts.rows("students"):
        most = max(inside[number] for number, _ in facts.seen_by(student["student_no"]))
        rows += [("student", student["student_id"], most)] if most else []
    releases = [one["release_id"] for one in facts.rows("releases") if waiver in one["waiver_ids"]]
    return rows + [("release", name, None) for name in releases]


def q10(facts: Facts, since: str = "2000-01-01") -> Rows:
    runs = facts.by("runs", "run_no")
    grouped: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    allowed: dict[tuple[Any, ...], int] = {}
    for row in facts.rows("decisions"):
        task = runs[row["run_no"]]["task"] if row["run_no"] is not None else None
        key = (row["stage"], task, row["subject_kind"], row["subject"], row["role"])
        if row["outcome"] == "allow":
            allowed[key] = row["decision_no"]
        elif row["decided_time"].date().isoformat() >= since:
            grouped[key].append(row)
    rows = []
    for key, stopped in grouped.items():
        last = stopped[-1]
        why = [
            one
            for one in facts.rows("decision_reasons")
            if one["decision_no"] == last["decision_no"] and one["outcome"] != "allow"
        ]
        rules = ", ".join(sorted({one["rule"] for one in why}))
        terms = ", ".join(sorted({one["terms_id"] for one in why if one["terms_id"]})) or None
        later = allowed.get(key, -1) > last["decision_no"]
        avoided = None if later else last["estimated_microusd"]
        times = (len(stopped), stopped[0]["decided_time"], last["decided_time"])
        rows.append((*key, last["outcome"], rules, terms, *times, later, avoided))
    total = sum(row[-1] or 0 for row in rows)
    return [(*row, total) for row in rows]


def q11(facts: Facts, teacher: str | None = None) -> Rows:
    records = Counter(row["request_no"] for row in facts.rows("record_requests"))
    found: dict[tuple[int, int, int, int], list[Row]] = defaultdict(list)
    for request in facts.rows("requests"):
        if request["from_cache"] and request["origin_terms_set_no"] != request["terms_set_no"]:
            sets = (request["terms_set_no"], request["origin_terms_set_no"])
            found[(request["run_no"], request["teacher_no"], *sets)].append(request)
    runs, rows = facts.by("runs", "run_no"), []
    for (run, number, now, origin), requests in found.items():
        name = facts.teachers[number]["teacher_id"]
        if teacher not in (None, name):
            continue
        here, there = facts.documents.get(now, []), facts.documents.get(origin, [])
        times = [one["origin_sent_time"] for one in requests]
        rows.append(
            (
                *(runs[run]["run_id"], name, len(requests)),
                sum(records[one["request_no"]] for one in requests),
                ", ".join(one for one in there if one not in here),
                ", ".join(one for one in here if one not in there),
                *(min(times), max(times)),
            )
        )
    return rows


def q12(facts: Facts, dataset: str) -> Rows:
    members, records = facts.members[facts.dataset(dataset)], facts.by("records", "record_no")
    own: dict[tuple[int, str | None], set[int]] = defaultdict(set)
    through: dict[tuple[int, str | None], set[int]] = defaultdict(set)
    for record in members:
        for by_parent, role, request in facts.uses(record):
            if role not in ("judge", "filter"):
                (through if by_parent else own)[request["teacher_no"], request["model_served"]].add(record)
    gone = facts.taken("record", facts.dataset(dataset))
    whole = len(members) + sum(one["records"] for one in gone)
    total = sum(records[one]["output_tokens"] for one in members) + sum(one["output_tokens"] for one in gone)
    rows: Rows = []
    for one in facts.taken("use", facts.dataset(dataset)):
        if one["role"] not in ("judge", "filter"):
            teacher = facts.teachers[one["teacher_no"]]
            names = (teacher["provider"], teacher["teacher_id"], teacher["model"], one["model_served"])
            direct, tokens = one["records"] - one["by_parents"], one["output_tokens"]
            counts = (direct, round(direct / whole, 6), tokens, round(tokens / total, 6), one["by_parents"])
            rows.append((*names, teacher["revision"], teacher["route"], teacher["host"], *counts, one["erasure"]))
    for key in own.keys() | through.keys():
        teacher = facts.teachers[key[0]]
        tokens = sum(records[one]["output_tokens"] for one in own[key])
        names = (teacher["provider"], teacher["teacher_id"], teacher["model"], key[1])
        shares = (len(own[key]), round(len(own[key]) / whole, 6), tokens, round(tokens / total, 6))
        where = (teacher["revision"], teacher["route"], teacher["host"])
        rows.append((*names, *where, *shares, len(through[key] - own[key]), None))
    return rows


def q13(facts: Facts, student: str) -> Rows:
    seen = dict.fromkeys(number for number, _ in facts.seen_by(facts.student(student)["student_no"]))
    members = {record for number in seen for record in facts.members[number]}
    records = [row for row in facts.rows("records") if row["record_no"] in members]
    held = set().union(*(facts.held(record) for record in members))
    taken = {about: [row for one in seen for row in facts.taken(about, one)] for about in ("record", "use", "source")}
    named = {row["source_id"] for row in taken["source"]}
    sources = [row for row in facts.rows("sources") if row["source_no"] in held or row["source_id"] in named]
    asked = [(row, facts.requests[row["request_no"]]) for one in members for row in facts.asked.get(one, ())]
    makers = {"{provider} {model}".format(**facts.teachers[request["teacher_no"]]) for _, request in asked}
    makers |= {"{provider} {model}".format(**facts.teachers[row["teacher_no"]]) for row in taken["use"]}
    judged = {row["record_no"] for row, _ in asked if row["role"] in ("judge", "filter")}
    personal = sum(1 for row in records if row["personal_data"])
    classes = sorted({kind for row in sources for kind in row["personal_data"]})
    days = [row["created_time"].date() for row in records]
    tokens = sum(row["input_tokens"] + row["output_tokens"] for row in records)

    def told(column: str) -> str:
        counted = Counter(row[column] or "not told" for row in sources)
        return ", ".join(sorted(f"{name}: {count} source{'s' * (count > 1)}" for name, count in counted.items()))

    kinds = Counter(row["kind"] for row in records)
    made = sum(1 for record in members if record in facts.parents)
    first = ", ".join(sorted(f"{facts.labels[number]}: 2026-07-26" for number in seen))
    gone = sum(row["records"] for row in taken["record"])
    gone_tokens = sum(row["input_tokens"] + row["output_tokens"] for row in taken["record"])
    gone_kinds: Counter[str] = Counter()
    for row in taken["record"]:
        gone_kinds[row["kind"]] += row["records"]
    gone_judged = sum(row["records"] for row in taken["use"] if row["role"] in ("judge", "filter"))

    def parted(counts: Counter[str], head: str = "") -> list[str]:
        return [head + ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))] if counts else []

    values = [
        ", ".join(f"{row['source_id']} ({row['rightsholder'] or 'owner not told'})" for row in sources),
        None,
        f"{len(records)} records, {tokens} tokens"
        + f"; erased since: {gone} records, {gone_tokens} tokens" * bool(gone),
        "; ".join([*parted(kinds), *parted(gone_kinds, "erased since: ")]),
        told("copyright_status"),
        told("acquisition"),
        f"{personal} records; classes told of sources: {', '.join(classes) or 'none'}",
        None,
        f"records made from other records: {made}; judged or filtered: {len(judged)}"
        + f"; erased since, by judge and role: {gone_judged}" * bool(gone_judged),
        f"from {min(days)} to {max(days)}" if days else None,
        first,
        f"yes: {', '.join(sorted(makers))}",
    ]
    return [(number + 1, value) for number, value in enumerate(values)]


def q14(facts: Facts, dataset: str | None = None) -> Rows:
    rows = []
    for source in facts.rows("sources"):
        says = facts.by("licences", "licence")[source["licence"]]
        bits = (says["known"], says["share_alike"], says["non_commercial"], says["no_derivatives"])
        if bits == (True, False, False, False):
            continue
        derived = facts.derived(source["source_no"]).keys()
        where = sorted(facts.labels[number] for number, members in facts.members.items() if derived & set(members))
        if dataset is not None and dataset not in where:
            continue
        students = sorted(
            one["student_id"]
            for one in facts.rows("students")
            if any(facts.labels[number] in where for number, _ in facts.seen_by(one["student_no"]))
        )
        names = (", ".join(where) or None, ", ".join(students) or None)
        rows.append((source["source_id"], source["licence"], *bits, len(derived), *names))
    return rows


def q15(facts: Facts, dataset: str) -> Rows:
    records, rows = facts.by("records", "record_no"), []
    for number in facts.members[facts.dataset(dataset)]:
        asked = [facts.requests[row["request_no"]] for row in facts.asked.get(number, ())]
        lacks = [
            *(["request"] if not asked else []),
            *(["terms or teacher"] if any(not facts.governing(request) for request in asked) else []),
            *(["source"] if number not in facts.sources_of else []),
            *(["parent"] if any(one["parent_no"] not in records for one in facts.parents.get(number, ())) else []),
        ]
        rows += [(records[number]["record_id"].hex(), lack, records[number]["shard"]) for lack in lacks]
    return rows


def q16(facts: Facts, student: str) -> Rows:
    release = next(one for one in facts.rows("releases") if one["student_no"] == facts.student(student)["student_no"])
    decision = next(one for one in facts.rows("decisions") if one["stage"] == "release")
    digests = (release["policy_digest"].hex(), release["registry_digest"].hex())
    said = (decision["outcome"], decision["role"], decision["decided_time"], "w-soon")
    head = (release["release_id"], release["name"], release["approver"], "Ada Lovelace", release["released_time"])
    return [(*head, None, release["student_distribution"], *digests, "w-soon by ada until 2026-09-01", *said)]


def q17(facts: Facts, provider: str) -> Rows:
    rows = []
    for student in facts.rows("students"):
        parts: Rows = []
        written = False
        for dataset, used_for in facts.seen_by(student["student_no"]):
            counted: Counter[str] = Counter()
            for record in facts.members[dataset]:
                uses = facts.uses(record)
                counted.update({role for _, role, request in uses if facts.theirs(provider, request)})
            gone = [one for one in facts.taken("use", dataset) if facts.theirs(provider, one)]
            written |= used_for == "train" and bool(TEXT & {*counted, *(one["role"] for one in gone)})
            head = (student["student_id"], facts.labels[dataset], used_for)
            parts += [(*head, role, count, None) for role, count in counted.items()]
            parts += [(*head, one["role"], one["records"], one["erasure"]) for one in gone]
        rows += [] if written else parts
    return rows


def q18(facts: Facts, teacher: str | None = None) -> Rows:
    records = Counter(row["request_no"] for row in facts.rows("record_requests"))
    found: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for request in facts.rows("requests"):
        served, model = request["model_served"], facts.teachers[request["teacher_no"]]["model"]
        if served is not None and served != model:
            found[request["teacher_no"], served].append(request)
    rows = []
    for (number, served), requests in found.items():
        asked = facts.teachers[number]
        dated = re.fullmatch(re.escape(asked["model"]) + r"[-@:]v?\d[\d.-]*", served)
        times = [one["sent_time"] for one in requests]
        counts = (len(requests), sum(records[one["request_no"]] for one in requests), min(times), max(times))
        looks = "dated version" if dated else "another model"
        if teacher in (None, asked["teacher_id"]):
            rows.append((asked["teacher_id"], asked["model"], served, looks, *counts))
    return rows


def q19(facts: Facts, rightsholder: str) -> Rows:
    rows: Rows = []
    for source in facts.rows("sources"):
        if source["rightsholder"] != rightsholder:
            continue
        derived = facts.derived(source["source_no"]).keys()
        gone = {
            no: sum(one["records"] for one in facts.taken("source", no) if one["source_id"] == source["source_id"])
            for no in (None, *facts.members)
        }
        told = (source["source_id"], source["licence"], source["acquisition"], source["acquired"])
        head = (*told, len(derived), gone[None])
        for number, members in facts.members.items():
            inside = len(derived & set(members)) + gone[number]
            dataset = facts.by("datasets", "dataset_no")[number]
            where = (facts.labels[number], dataset["status"], dataset["created_time"], inside)
            for student in facts.rows("students") if inside else ():
                release: Row = facts.by("releases", "student_no").get(student["student_no"], {})
                tail = tuple(release.get(name) for name in ("release_id", "name", "released_time", "withdrawn_time"))
                roles = [role for seen, role in facts.seen_by(student["student_no"]) if seen == number]
                about = ((student["student_id"], role, student["trained_time"]) for role in roles)
                rows += [(*head, *where, *one, *tail) for one in about]
    return rows


def q20(facts: Facts, checkpoint: str | None = None) -> Rows:
    events, rows = facts.rows("events"), []
    for one in facts.rows("checkpoints"):
        if checkpoint not in (None, str(one["size"])):
            continue
        after = [event for event in events if event["seq"] > one["size"]]
        erased = sum(event["erased"] for event in events if event["seq"] <= one["size"])
        kinds = ", ".join(sorted({event["kind"] for event in after})) or None
        rows.append((one["size"], one["root"].hex(), one["key_id"], one["signed_time"], len(after), erased, kinds))
    return rows


ANSWERS: dict[str, Callable[..., Rows]] = {
    name: value for name, value in globals().items() if re.fullmatch(r"q\d\d", name)
}
