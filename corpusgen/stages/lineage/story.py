"""Story: where one record comes from and where it went, in order, for a person and in PROV's words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.records import Json
from corpusgen.stages.lineage.reading import Lineage, quoted, reading
from corpusgen.stages.lineage.tracing import lineage_files
from corpusgen.stages.runs import JUDGES

NOTICE: Final = "Not legal advice."
SHOWN: Final = 20
"""So many records are listed where the beginning of an id is that of several, or where there are many children."""
_BEGINNING: Final = re.compile(r"[0-9a-f]{1,64}")

_TYPES: Final = ("prov:Person", "prov:Organization", "prov:SoftwareAgent", "prov:Plan", "prov:Collection")

Row = dict[str, Any]

_RECORD: Final = """
select records.record_no, lower(hex(record_id)) as record_id, kind, licence, shard, records.personal_data,
    records.input_tokens, records.output_tokens, created_time, records.run_no
from records where record_id between $least::blob and $most::blob order by record_id limit $most_shown
"""
_SOURCES: Final = """
select source_id, title, licence, role, locator, rightsholder, acquisition, acquired, copyright_status, personal_data,
    generated_by
from record_sources join sources using (source_no) where record_no = $record
order by role <> 'seed', source_id
"""
_REQUESTS: Final = """
select request_no, lower(hex(request_key)) as request, string_agg(distinct role, ', ' order by role) as role,
    runs.run_id, teacher_id as teacher, provider, route, host, coalesce(requests.region, teachers.region) as region,
    teachers.model as model_asked, model_served, teachers.revision, state, from_cache, cost_microusd,
    requests.input_tokens, requests.output_tokens, requests.provider_request_id, requests.personal_data, sent_time,
    coalesce(origin_terms_set_no, terms_set_no) as terms_set_no, origin_sent_time, origin_run.run_id as origin_run
from record_requests join requests using (request_no) join teachers using (teacher_no) join runs using (run_no)
left join (select request_no as origin_request_no, run_no as origin_run_no from requests) origin
    using (origin_request_no)
left join runs origin_run on origin_run.run_no = origin.origin_run_no
where record_no = $record
group by all order by sent_time, request_no
"""
_TERMS: Final = """
select terms_set_no, terms_id, coalesce(title, 'in no terms file that is here any more') as title,
    coalesce(version, 'unknown') as version, kind, effective, superseded, outputs_train, terms.spdx,
    lower(hex(text_sha256)) as text_sha256
from terms_sets left join terms using (terms_id) order by terms_set_no, terms_id
"""
_DECISIONS: Final = """
select decision_no, stage, role, decisions.outcome, lower(hex(policy_digest)) as policy_digest,
    lower(hex(registry_digest)) as registry_digest, decided_time
from decisions join runs using (run_no)
where run_id = $run and subject = $teacher and subject_kind = 'teacher' and list_contains($roles, role)
    and stage in ('plan', 'request')
order by (stage = 'request') <> $replayed, decided_time > $sent,
    case when decided_time <= $sent then decided_time end desc nulls last, decided_time
limit 1
"""
_REASONS: Final = """
select rule, terms_id, outcome, text from decision_reasons where decision_no = $decision order by rule, terms_id
"""
_WAIVERS: Final = """
select waiver_id, granted_by, reason, granted, expires from decision_waivers join waivers using (waiver_id)
where decision_no = $decision order by waiver_id
"""
_RELATIVES: Final = """
select lower(hex(record_id)) as record_id, relation.how, kind, task
from record_parents relation join records on records.record_no = relation.{other} join runs using (run_no)
where relation.{this} = $record order by record_id
"""
_DATASETS: Final = """
select dataset, status, split, created_time, revoked_time, lower(hex(manifest_sha256)) as manifest_sha256
from dataset_records join v_dataset using (dataset_no) where record_no = $record order by name, created_time, version
"""
_STUDENTS: Final = """
select student_id, dataset, student_datasets.role as used_for, trained_time, students.status
from dataset_records join student_datasets using (dataset_no) join students using (student_no)
join v_dataset using (dataset_no) where record_no = $record
order by trained_time, student_id, used_for
"""
_RELEASES: Final = """
select release_id, releases.name, student_id, approver, released_time, withdrawn_time
from releases join students using (student_no)
where student_no in (
    select student_no from student_datasets semi join (select dataset_no from dataset_records where record_no = $record)
    using (dataset_no))
order by released_time
"""
_RUN: Final = """
select run_id, task, actor, status, student_competes, commercial, student_distribution, started_time,
    lower(hex(spec_digest)) as spec_digest, lower(hex(prompt_digest)) as prompt_digest
from runs where run_no = $run
"""


@dataclass(frozen=True, kw_only=True)
class Story:
    """One record's story. What stands in ``text`` and in verdicts comes from strangers."""

    record: Row
    text: Row
    """``input`` and ``response``, and what else only the record itself tells."""
    sources: Sequence[Row]
    run: Row | None
    requests: Sequence[Row]
    """Each with ``terms``, the documents that govern its answer, and ``decision``, what allowed it."""
    verdicts: Sequence[Row]
    parents: Sequence[Row]
    children: Sequence[Row]
    datasets: Sequence[Row]
    students: Sequence[Row]
    releases: Sequence[Row]

    def to_json(self) -> dict[str, Json]:
        """The story, and the same in PROV-JSON under ``prov``."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**told, "prov": prov_json(self), "notice": NOTICE}


def story(corpus: Corpus, record: str) -> Story:
    """The story of a record, by its id or by a beginning of it that no other id has.

    Raises UsageError that lists the records whose ids begin like that, or says that there is none.
    """
    files = lineage_files(corpus)
    with reading(files) as lineage:
        found = _found(corpus, lineage, record.strip().lower())
        return _told(corpus, lineage, found)


def _found(corpus: Corpus, lineage: Lineage, beginning: str) -> Row:
    if not _BEGINNING.fullmatch(beginning):
        raise UsageError(f"{beginning!r:.80} is no record id; write 64 hexadecimal digits, or the first few of them")
    ends = {name: bytes.fromhex(beginning.ljust(64, digit)) for name, digit in (("least", "0"), ("most", "f"))}
    found = lineage.rows(_RECORD, **ends, most_shown=SHOWN + 1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(_none(corpus, beginning, **ends))
    listed = "\n".join(f"  {one['record_id']} ({one['kind']})" for one in found[:SHOWN])
    more = f"\n  and more; write more than {len(beginning)} digits" if len(found) > SHOWN else ""
    raise UsageError(f"several records begin with {beginning}:\n{listed}{more}")


def _none(corpus: Corpus, beginning: str, least: bytes, most: bytes) -> str:
    waiting = corpus.journal.query(
        "select count(*) from records where record_id between ? and ? and shard is null", (least, most)
    )[0][0]
    if waiting:
        return f"record {beginning} is answered and not committed yet; the next corpusgen run of its task commits it"
    erased = corpus.journal.query("select count(*) from erasures")[0][0]
    gone = "; records were erased here, and of those nobody keeps an id" if erased else ""
    return f"no record in {corpus.folder} has an id that begins with {beginning}{gone}"


def _told(corpus: Corpus, lineage: Lineage, found: Row) -> Story:
    no, terms = found["record_no"], _terms(lineage)
    own = _own(corpus, lineage, found)
    requests = [_request(lineage, one, terms) for one in lineage.rows(_REQUESTS, record=no)]
    (run,) = lineage.rows(_RUN, run=found["run_no"])
    items = own.pop("source_ids") or []
    return Story(
        record={**_shown(found), "task": own.pop("task"), "split": own.pop("dataset_split")},
        verdicts=own.pop("verdicts") or [],
        text=own,
        sources=[_source(one, items) for one in lineage.rows(_SOURCES, record=no)],
        run=run,
        requests=requests,
        parents=lineage.rows(_RELATIVES.format(other="parent_no", this="record_no"), record=no),
        children=lineage.rows(_RELATIVES.format(other="record_no", this="parent_no"), record=no),
        datasets=lineage.rows(_DATASETS, record=no),
        students=lineage.rows(_STUDENTS, record=no),
        releases=lineage.rows(_RELEASES, record=no),
    )


def _shown(found: Row) -> Row:
    return {name: value for name, value in found.items() if name not in ("record_no", "run_no")}


def _own(corpus: Corpus, lineage: Lineage, found: Row) -> Row:
    """What only the record's row in its shard tells."""
    columns = (
        "task, dataset_split, input, response, label, reasoning, finish_reason, truncated, sample_index, teacher_role,"
        " price_version, cost_microusd, origin_cost_microusd, from_cache, source_ids, verdicts"
    )
    shard = quoted(corpus.folder / found["shard"])
    (own,) = lineage.rows(
        f"select {columns} from read_parquet({shard}, union_by_name = true) where record_id = $record",  # noqa: S608
        record=found["record_id"],
    )
    return own


def _terms(lineage: Lineage) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for one in lineage.rows(_TERMS):
        found.setdefault(one.pop("terms_set_no"), []).append(one)
    return found


def _source(one: Row, items: Sequence[str]) -> Row:
    """A source with those of its items that stand in the record."""
    return {**one, "items": [name.partition("#")[2] for name in items if name.partition("#")[0] == one["source_id"]]}


def _request(lineage: Lineage, one: Row, terms: Mapping[int, list[Row]]) -> Row:
    run = one["run_id"].partition(JUDGES)[0]
    sent = one["sent_time"]
    roles = one["role"].split(", ")
    about = {"run": run, "teacher": one["teacher"], "roles": roles, "sent": sent, "replayed": one["from_cache"]}
    decided = lineage.rows(_DECISIONS, **about)
    for decision in decided:
        decision["reasons"] = lineage.rows(_REASONS, decision=decision["decision_no"])
        decision["waivers"] = lineage.rows(_WAIVERS, decision=decision.pop("decision_no"))
    governed = terms.get(one["terms_set_no"], [])
    kept = {name: value for name, value in one.items() if name not in ("request_no", "terms_set_no")}
    return {**kept, "terms": governed, "decision": decided[0] if decided else None}


# --- PROV ------------------------------------------------------------------------------------------------------------


def prov_json(told: Story) -> dict[str, Json]:
    """The story as a PROV-JSON document (W3C): entities, activities, agents and what ties them."""
    made = _Prov(f"record/{told.record['record_id']}")
    made.add("entity", made.record, {"prov:type": told.record["kind"], "corpusgen:licence": told.record.get("licence")})
    _prov_sources(made, told)
    _prov_requests(made, told)
    for name, ids in (("parents", told.parents), ("children", told.children)):
        for one in ids:
            other = f"record/{one['record_id']}"
            made.add("entity", other, {"prov:type": one["kind"]})
            pair = (made.record, other) if name == "parents" else (other, made.record)
            made.tie("wasDerivedFrom", generatedEntity=pair[0], usedEntity=pair[1])
    _prov_uses(made, told)
    return made.document


class _Prov:
    """A document that grows."""

    def __init__(self, record: str) -> None:
        self.record = record
        self.document: dict[str, Json] = {"prefix": {"corpusgen": "urn:corpusgen:"}}

    def add(self, kind: str, name: str, facts: Mapping[str, Json]) -> None:
        """An entity, an activity or an agent."""
        told = {key: _typed(value) for key, value in facts.items() if value is not None}
        self.document.setdefault(kind, {}).setdefault(_qualified(name), {}).update(told)

    def agent(self, name: str, kind: str) -> str:
        """An agent by its name."""
        self.add("agent", f"agent/{name}", {"prov:type": kind, "prov:label": name})
        return f"agent/{name}"

    def tie(self, relation: str, /, *, role: str | None = None, **ends: str) -> None:
        """A relation between two of them."""
        known = self.document.setdefault(relation, {})
        told = {f"prov:{end}": _qualified(name) for end, name in ends.items()}
        known[f"_:{relation}{len(known)}"] = told | ({"prov:role": role} if role else {})


def _typed(value: Json) -> Json:
    """PROV's own types are names, not texts."""
    return {"$": value, "type": "prov:QUALIFIED_NAME"} if value in _TYPES else value


def _qualified(name: str) -> str:
    """A name as PROV spells one; people's names have spaces."""
    return f"corpusgen:{quote(name, safe='/.-_@')}"


def _prov_sources(made: _Prov, told: Story) -> None:
    for one in told.sources:
        name = f"source/{one['source_id']}"
        made.add("entity", name, {"prov:label": one["title"], "corpusgen:licence": one["licence"]})
        made.tie("wasDerivedFrom", generatedEntity=made.record, usedEntity=name)
        if one["rightsholder"]:
            owner = made.agent(one["rightsholder"], "prov:Organization")
            made.tie("wasAttributedTo", entity=name, agent=owner)


def _prov_requests(made: _Prov, told: Story) -> None:
    for one in told.requests:
        name, run = f"request/{one['run_id']}/{one['request']}", f"run/{one['run_id']}"
        made.add("activity", run, {})
        made.add(
            "activity",
            name,
            {"prov:startTime": _time(one["sent_time"]), "corpusgen:model": one["model_served"] or one["model_asked"]},
        )
        made.tie("wasInformedBy", informed=name, informant=run)
        made.tie("wasGeneratedBy", entity=made.record, activity=name, role=one["role"])
        teacher = f"teacher/{one['teacher']}"
        made.add("agent", teacher, {"prov:type": "prov:SoftwareAgent", "corpusgen:route": one["route"]})
        made.tie("wasAttributedTo", entity=made.record, agent=teacher)
        made.tie("actedOnBehalfOf", delegate=teacher, responsible=made.agent(one["provider"], "prov:Organization"))
        for source in told.sources:
            made.tie("used", activity=name, entity=f"source/{source['source_id']}", role=source["role"])
        for document in one["terms"]:
            plan = f"terms/{document['terms_id']}"
            made.add("entity", plan, {"prov:type": "prov:Plan", "prov:label": document["title"]})
            made.tie("wasAssociatedWith", activity=name, agent=teacher, plan=plan)
    if told.run is not None and told.run["actor"]:
        made.add("activity", f"run/{told.run['run_id']}", {"prov:startTime": _time(told.run["started_time"])})
        person = made.agent(told.run["actor"], "prov:Person")
        made.tie("wasAssociatedWith", activity=f"run/{told.run['run_id']}", agent=person)


def _prov_uses(made: _Prov, told: Story) -> None:
    for one in told.datasets:
        made.add(
            "entity", f"dataset/{one['dataset']}", {"prov:type": "prov:Collection", "corpusgen:status": one["status"]}
        )
        made.tie("hadMember", collection=f"dataset/{one['dataset']}", entity=made.record)
    for one in told.students:
        made.add("entity", f"student/{one['student_id']}", {"prov:type": "student"})
        ends = {"generatedEntity": f"student/{one['student_id']}", "usedEntity": f"dataset/{one['dataset']}"}
        made.tie("wasDerivedFrom", **ends)
    for one in told.releases:
        name = f"release/{one['release_id']}"
        made.add("activity", name, {"prov:endTime": _time(one["released_time"])})
        made.tie("used", activity=name, entity=f"student/{one['student_id']}")
        made.tie("wasAssociatedWith", activity=name, agent=made.agent(one["approver"], "prov:Person"))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat()}Z"


# --- In words --------------------------------------------------------------------------------------------------------


def chapters(told: Story) -> Iterator[tuple[str, str]]:
    """The story in order, each line with what it is about. Texts of strangers are as they came."""
    yield from _of_sources(told)
    yield from _of_run(told)
    for one in told.requests:
        yield from _of_request(one)
    for verdict in told.verdicts:
        score = "" if verdict["score"] is None else f" ({verdict['score']:g})"
        reason = f": {verdict['reason']}" if verdict["reason"] else ""
        yield "checked", f"{verdict['check']}: {'kept' if verdict['kept'] else 'failed'}{score}{reason}"
    yield from _of_relatives(told)
    yield from _of_uses(told)


def _of_sources(told: Story) -> Iterator[tuple[str, str]]:
    for one in told.sources:
        items = (
            f", {'item' if len(one['items']) == 1 else 'items'} {', '.join(one['items'][:5])}" if one["items"] else ""
        )
        more = f" and {len(one['items']) - 5} more" if len(one["items"]) > 5 else ""
        owner = f", rights of {one['rightsholder']}" if one["rightsholder"] else ""
        wrote = f", written by models under {', '.join(one['generated_by'])}" if one["generated_by"] else ""
        yield (
            "source",
            f"{one['source_id']} as {one['role']}: {one['title']} ({one['licence']}){owner}{wrote}{items}{more}",
        )


def _of_run(told: Story) -> Iterator[tuple[str, str]]:
    run = told.run
    if run is None:
        return
    yield "prompt", f"{run['prompt_digest']} of spec {run['spec_digest']}"
    use = f"student {run['student_distribution'].replace('_', ' ')}, competes: {run['student_competes']}"
    use += ", commercial" if run["commercial"] else ", not commercial"
    by = f" by {run['actor']}" if run["actor"] else ""
    yield "run", f"{run['run_id']} of {run['task']}{by}, started {run['started_time']:%Y-%m-%d %H:%M} UTC; {use}"


def _of_request(one: Row) -> Iterator[tuple[str, str]]:
    if (decision := one["decision"]) is not None:
        when = f"{decision['decided_time']:%Y-%m-%d}"
        rules = ", ".join(dict.fromkeys(reason["rule"] for reason in decision["reasons"]))
        yield "decided", f"{decision['outcome']} as {decision['role']} on {when} by {rules}"
        for reason in decision["reasons"]:
            about = f"{reason['terms_id']}: " if reason["terms_id"] else ""
            yield "", f"{reason['rule']} {about}{reason['text']}"
        for waiver in decision["waivers"]:
            told = f"{waiver['waiver_id']} of {waiver['granted_by']} until {waiver['expires']}: {waiver['reason']}"
            yield "", f"waived by {told}"
    for document in one["terms"]:
        since = f"in force since {document['effective']}" if document["effective"] else "in force on that day"
        until = f", superseded on {document['superseded']}" if document["superseded"] else ""
        yield "terms", f"{document['terms_id']}: {document['title']}, version {document['version']}, {since}{until}"
    yield "asked", _asked(one)


def _asked(one: Row) -> str:
    where = f"{one['provider']}, route {one['route']}" + (f", {one['host']}" if one["host"] else "")
    where += f", {one['region']}" if one["region"] else ""
    served = one["model_served"] or "no model named"
    text = f"{one['teacher']} ({where}) as {one['role']}; asked {one['model_asked']}, served {served}"
    text += f"; {one['sent_time']:%Y-%m-%d %H:%M:%S} UTC, ${one['cost_microusd'] / 1_000_000:,.6f}"
    if one["state"] != "answered":
        text += f"; {one['state']}"
    if one["from_cache"] or one["origin_sent_time"]:
        origin = (
            f"run {one['origin_run']}" if one["origin_run"] else "another corpus" if one["route"] != "imported" else ""
        )
        when = f" of {one['origin_sent_time']:%Y-%m-%d %H:%M:%S} UTC" if one["origin_sent_time"] else ""
        text += f"; answered from {origin}{when}, nothing was sent" if origin else "; imported, nothing was sent"
    return text


def _of_relatives(told: Story) -> Iterator[tuple[str, str]]:
    for one in told.parents:
        yield "parent", f"{one['record_id']} ({one['kind']} of {one['task']}, {one['how']})"
    for one in told.children[:SHOWN]:
        yield "child", f"{one['record_id']} ({one['kind']} of {one['task']}, {one['how']})"
    if len(told.children) > SHOWN:
        yield "child", f"and {len(told.children) - SHOWN:,} more; --json lists them"


def _of_uses(told: Story) -> Iterator[tuple[str, str]]:
    for one in told.datasets:
        revoked = f" on {one['revoked_time']:%Y-%m-%d}" if one["revoked_time"] else ""
        yield "dataset", f"{one['dataset']}, split {one['split']}, {one['status']}{revoked}"
    for one in told.students:
        yield (
            "student",
            f"{one['student_id']} took {one['dataset']} for {one['used_for']}, {one['trained_time']:%Y-%m-%d}",
        )
    for one in told.releases:
        gone = f", withdrawn {one['withdrawn_time']:%Y-%m-%d}" if one["withdrawn_time"] else ""
        by = f"approved by {one['approver']} on {one['released_time']:%Y-%m-%d}"
        yield "released", f"{one['name']} ({one['release_id']}) of student {one['student_id']}, {by}{gone}"
