"""Without: what a corpus would lose if a provider's terms or service went away, and what asking others would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from corpusgen.budget.prices import Rate, rate_of
from corpusgen.corpus import Corpus
from corpusgen.errors import PriceUnknown, UsageError
from corpusgen.provenance.policy import Decision, Role, decide
from corpusgen.provenance.questions import NOTICE
from corpusgen.provenance.terms import TeacherRoute
from corpusgen.records import Json
from corpusgen.stages.lineage.reading import Lineage, reading
from corpusgen.stages.lineage.specs_of_runs import SpecOfRun
from corpusgen.stages.lineage.traced_facts import Facts
from corpusgen.stages.lineage.tracing import lineage_files
from corpusgen.stages.terms.deciding import rights_of, sources_of, use_of
from corpusgen.stages.terms.quarantine import route_of_card
from corpusgen.stages.terms.rejudging import stored_cards, stored_task
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.registry import resolved

_STRICT: Final = {"allow": 0, "needs_waiver": 1, "deny": 2}
_OWN: Final = "runs on your own machines: processor time, and no price per token"
_MEASURED: Final = "by the tokens that were measured; another teacher counts and answers otherwise"


@dataclass(frozen=True, kw_only=True)
class Amount:
    """So many records with so many tokens."""

    records: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Touched:
    """A dataset or a student, with how many of its records the teachers that go touched in any role or parent."""

    name: str
    kind: str
    """``dataset`` or ``student``."""
    status: str
    split: str | None
    """The split of a dataset; for a student, the dataset and what it took it for."""
    records: int
    touched: int


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What asking another teacher for the lost answers of a task would cost."""

    teacher: str
    task: str
    outcome: str
    """What today's terms say of it: allow, needs_waiver or deny."""
    records: int
    microusd: int | None
    """None where its price is not known."""
    price_version: str | None
    remark: str
    """Why there is no price, or what the figure stands on."""


@dataclass(frozen=True, kw_only=True)
class Without:
    """What would be lost without a provider or teacher, what would remain, and what replacing it would cost."""

    name: str
    teachers: tuple[str, ...]
    """The teachers that go."""
    roles: dict[str, Amount]
    """What they touched themselves, by role; a record counts in each role it was touched in. ``source``: models of
    this provider wrote text that a record was made from."""
    lost: Amount
    """Every record they touched, in any role, itself or through a parent."""
    derived: Amount
    """Those of them that are lost only because they were made from others; their own teachers stay."""
    remaining: Amount
    touched: tuple[Touched, ...]
    elsewhere: tuple[Elsewhere, ...]
    notice: str = NOTICE

    def to_json(self) -> dict[str, Json]:
        """Everything, for --json."""
        return asdict(self)


_ASKED: Final = """
create temp table gone as
select distinct requests.teacher_no, requests.terms_set_no, teacher_id from v_requests requests
join teachers using (teacher_no)
where $name in (teacher_id, provider, host) or requests.terms_set_no in (
    select terms_set_no from terms_sets join terms using (terms_id) where terms.provider = $name)
"""
_GONE_REQUESTS: Final = """
create temp table gone_requests as
select request_no from v_requests semi join gone using (teacher_no, terms_set_no)
"""
_WROTE: Final = """
create temp table wrote as
select source_no from sources
where list_has_any(generated_by, (select coalesce(list(terms_id), []) from terms where provider = $name))
"""
_DIRECT: Final = """
create temp table direct as
select distinct record_no, role from record_requests semi join gone_requests using (request_no)
union
select distinct record_no, 'source' from record_sources semi join wrote using (source_no)
"""
_LOST: Final = """
create temp table lost as
select distinct closure.record_no from v_closure closure
join (select distinct record_no from direct) itself on itself.record_no = closure.ancestor_no
"""
_SUMS: Final = """
count(*) as records, coalesce(sum(input_tokens), 0)::bigint as input_tokens,
coalesce(sum(output_tokens), 0)::bigint as output_tokens
"""
_ROLES: Final = f"select role, {_SUMS} from direct join records using (record_no) group by role order by role"  # noqa: S608
_ALL_LOST: Final = f"select {_SUMS} from records semi join lost using (record_no)"  # noqa: S608
_DERIVED: Final = f"{_ALL_LOST} anti join direct using (record_no)"
_REMAINING: Final = f"select {_SUMS} from records anti join lost using (record_no)"  # noqa: S608
_DATASETS: Final = """
select dataset as name, status, split, count(*) as records, count(lost.record_no) as touched
from dataset_records join v_dataset using (dataset_no) left join lost using (record_no)
group by all having touched > 0 order by name, split
"""
_STUDENTS: Final = """
select student_id as name, students.status, dataset || ' (' || student_datasets.role || ')' as split,
    count(*) as records, count(lost.record_no) as touched
from student_datasets join students using (student_no) join v_dataset using (dataset_no)
join dataset_records using (dataset_no) left join lost using (record_no)
where student_datasets.role <> 'train' or dataset_records.split = 'train'
group by all having touched > 0
union all
select student_id, status, 'base weights ' || base_model, 0, 0 from students
where list_has_any(base_terms, (select coalesce(list(terms_id), []) from terms where provider = $name))
order by name, split
"""
_AGAIN: Final = """
select runs.run_no, runs.task, count(distinct record_no) as records,
    sum(input_tokens)::bigint as input_tokens, sum(output_tokens)::bigint as output_tokens
from (
    select requests.run_no, request_no, input_tokens, output_tokens, min(record_no) as record_no
    from requests semi join gone_requests using (request_no) join record_requests using (request_no) group by all
) join runs using (run_no)
group by all order by runs.task, runs.run_no
"""


def without(corpus: Corpus, name: str, *, teacher: str | None = None) -> Without:
    """What a corpus would lose without a provider (``openai``), a host or a teacher (``openai/gpt-5.2``).

    A provider goes with everything that its teachers answered and with what others answered under its terms.
    ``teacher`` is priced too, whatever the spec names. Raises UsageError listing who was asked here.
    """
    with reading(lineage_files(corpus)) as lineage:
        _mark(lineage, name)
        teachers = [row["teacher_id"] for row in lineage.rows("select distinct teacher_id from gone order by 1")]
        if not teachers and not lineage.rows("from wrote"):
            raise UsageError(_nobody(lineage, name))
        return Without(
            name=name,
            teachers=tuple(teachers),
            roles={row.pop("role"): Amount(**row) for row in lineage.rows(_ROLES)},
            lost=Amount(**lineage.rows(_ALL_LOST)[0]),
            derived=Amount(**lineage.rows(_DERIVED)[0]),
            remaining=Amount(**lineage.rows(_REMAINING)[0]),
            touched=(
                *(Touched(kind="dataset", **row) for row in lineage.rows(_DATASETS)),
                *(Touched(kind="student", **row) for row in lineage.rows(_STUDENTS, name=name)),
            ),
            elsewhere=tuple(_elsewhere(corpus, lineage, frozenset(teachers), name, teacher)),
        )


def _mark(lineage: Lineage, name: str) -> None:
    lineage.run(_ASKED, name=name)
    lineage.run(_WROTE, name=name)
    for sql in (_GONE_REQUESTS, _DIRECT, _LOST):
        lineage.run(sql)


def _nobody(lineage: Lineage, name: str) -> str:
    rows = lineage.rows("select distinct provider, teacher_id from teachers order by 1, 2")
    asked = ", ".join(f"{row['provider']} ({row['teacher_id']})" for row in rows) or "nobody"
    return f"{name!r} is no provider, host or teacher that was asked here; asked were: {asked}"


# --- Asking elsewhere ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Somebody who could be asked instead: as the terms see it, and as prices are looked up."""

    route: TeacherRoute
    spec: TeacherSpec


def _elsewhere(
    corpus: Corpus, lineage: Lineage, gone: frozenset[str], name: str, wanted: str | None
) -> Iterator[Elsewhere]:
    runs, on = Facts.of(corpus).specs, corpus.clock().date()
    suggested = rights_of(corpus, None).registry.known_teachers
    for again in lineage.rows(_AGAIN):
        run = runs[again["run_no"]]
        if not run.spec.get("teachers"):  # what was imported is not asked for
            continue
        every = list(_candidates(corpus, run, runs, suggested, wanted))
        staying = [one for one in every if one.route.name == wanted or not _goes(one.route, gone, name)]
        for candidate, decision in _decided(corpus, run, on, staying):
            if decision.outcome == "allow" or candidate.route.name == wanted:
                yield _priced(candidate, decision, again, on)


def _goes(route: TeacherRoute, gone: frozenset[str], name: str) -> bool:
    return route.name in gone or name in (route.provider, route.host)


def _decided(
    corpus: Corpus, run: SpecOfRun, on: date, candidates: Sequence[_Candidate]
) -> Iterator[tuple[_Candidate, Decision]]:
    """What today's terms say of each, the strictest of all roles that the run's answers are used in."""
    told = {name: _in_dollars(part) for name, part in run.parents_spec.items() if name != "budget"}
    task = stored_task(corpus, run.run_id, orjson.dumps(told).decode())
    rights, use, sources = rights_of(corpus, task), use_of(task), sources_of(task)
    for one in candidates:
        found = [
            decide(
                rights.registry,
                one.route,
                use,
                on=on,
                role=cast("Role", role),
                sources=sources,
                waivers=rights.waivers,
                task=task.spec.name,
            )
            for role in run.roles
        ]
        yield one, max(found, key=lambda decision: _STRICT[decision.outcome])


def _candidates(
    corpus: Corpus, run: SpecOfRun, runs: Sequence[SpecOfRun], suggested: Sequence[Any], wanted: str | None
) -> Iterator[_Candidate]:
    """Teachers that specs here name, others that were asked, those the registry suggests, and who is wanted."""
    told = {str(one["name"]): _spec(one) for other in (*runs, run) for one in other.spec.get("teachers") or ()}
    cards = {card.teacher: route_of_card(card) for card in stored_cards(corpus) if card.route != "imported"}
    seen: set[tuple[str, str, str]] = set()
    known = [
        *(_Candidate(route=cards.get(name) or _route(spec), spec=spec) for name, spec in told.items()),
        *(_by_name(route) for name, route in cards.items() if name not in told),
        *(_by_name(TeacherRoute(**one.model_dump())) for one in suggested),
    ]
    if wanted is not None and all(one.route.name != wanted for one in known):
        known.append(_named(wanted))
    for one in known:
        key = (one.route.provider, one.route.model, one.route.route)
        if key not in seen or one.route.name == wanted:
            seen.add(key)
            yield one


def _spec(fields: dict[str, Json]) -> TeacherSpec:
    return TeacherSpec.model_validate_json(orjson.dumps(_in_dollars(fields)))


def _in_dollars(value: Json) -> Json:
    """A part of a spec as a person writes it: prices are kept in micro-dollars, and read as dollars."""
    if isinstance(value, list):
        return [_in_dollars(one) for one in value]
    if not isinstance(value, dict):
        return value
    priced = {name: one for name, one in value.items() if name.endswith("_usd_per_mtok") and one is not None}
    return {name: _in_dollars(one) for name, one in value.items()} | {
        name: one / 1_000_000 for name, one in priced.items()
    }


def _by_name(route: TeacherRoute) -> _Candidate:
    """Whom no spec here names; prices know it by its provider and model."""
    name = route.name if "/" in route.name else f"{route.provider}/{route.model}"
    fields = {"name": name, "parameters": {"max_tokens": 1}, "provider": route.provider, "route": route.route}
    return _Candidate(route=route, spec=_spec(fields))


def _named(name: str) -> _Candidate:
    try:
        spec = resolved(_spec({"name": name, "parameters": {"max_tokens": 1}}))
    except ValidationError as error:
        raise UsageError(f"--teacher: {name!r} names no teacher; write scheme/model, such as openai/gpt-4.1") from error
    return _Candidate(route=replace(_route(spec), name=name), spec=spec)


def _route(spec: TeacherSpec) -> TeacherRoute:
    """A teacher that nobody has asked yet as the terms see it."""
    told = resolved(spec)
    scheme, _, model = spec.name.partition("/")
    return TeacherRoute(
        name=spec.name,
        provider=told.provider or scheme,
        model=model,
        route=told.route or ("self_hosted" if scheme == "embedded" else "mock" if scheme == "scripted" else "api"),
        host=urlsplit(told.base_url or "").hostname or "",
        pinned_terms=spec.terms,
        region=spec.region,
        unpaid=spec.unpaid,
    )


def _priced(candidate: _Candidate, decision: Decision, again: Mapping[str, Any], on: date) -> Elsewhere:
    rate, why = _rate(candidate, on)
    return Elsewhere(
        teacher=candidate.route.name,
        task=again["task"],
        outcome=decision.outcome,
        records=again["records"],
        microusd=None if rate is None else rate.cost(again["input_tokens"], again["output_tokens"]),
        price_version=None if rate is None else rate.version,
        remark=why,
    )


def _rate(candidate: _Candidate, on: date) -> tuple[Rate | None, str]:
    if candidate.route.route == "self_hosted" and not candidate.spec.free and candidate.spec.price is None:
        return None, _OWN
    try:
        return rate_of(resolved(candidate.spec), on=on), _MEASURED
    except PriceUnknown as error:
        return None, f"price not known: {str(error).partition('; add price')[0]}"
