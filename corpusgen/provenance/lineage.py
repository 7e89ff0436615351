"""Where every record comes from, as narrow tables in PROV's words, and the views that follow them.

PROV (W3C) knows entities, activities and agents. Here

==========================  ==========================================================================================
entity                      terms, terms_texts, licences, sources, records, datasets, students
activity                    runs, requests, decisions, erasures, releases
agent                       agents (providers, organisations, people, software), teachers
plan of an activity         terms_sets: the terms a request was made under; waivers, agreements
wasGeneratedBy              record_requests (record from request, with the role its answer plays), dataset_records,
                            student_datasets (with what the dataset was used for)
used                        record_sources (with role); requests.origin_request_no (a replay used that request's answer)
wasDerivedFrom              record_parents
wasAttributedTo             sources.rightsholder, releases.approver, waivers.granted_by, terms.provider
wasAssociatedWith           requests.teacher_no (plan: requests.terms_set_no), runs.actor, erasures.erased_by
==========================  ==========================================================================================

All tables are rebuilt from the journal and the shards at any time; they hold nothing of their own and no text of a
record. Times are UTC without a zone. ``..._no`` are dense numbers from 0 that mean nothing outside one build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import pyarrow as pa

ProvKind: TypeAlias = Literal["entity", "activity", "agent", "plan", "relation"]

_TEXT, _NO, _COUNT, _YES = pa.string(), pa.int32(), pa.int64(), pa.bool_()
_TIME, _DAY, _HASH, _TEXTS = pa.timestamp("us"), pa.date32(), pa.binary(32), pa.list_(pa.string())


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its Arrow type and what it says."""

    name: str
    type: pa.DataType
    meaning: str = ""
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the lineage, and what it is in PROV."""

    name: str
    prov: ProvKind
    meaning: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """Its Arrow schema; optional columns may be null."""
        return pa.schema([pa.field(column.name, column.type, nullable=column.optional) for column in self.columns])


def _has(name: str, kind: pa.DataType, meaning: str = "") -> Column:
    return Column(name=name, type=kind, meaning=meaning)


def _may(name: str, kind: pa.DataType, meaning: str = "") -> Column:
    return Column(name=name, type=kind, meaning=meaning, optional=True)


def _table(name: str, prov: ProvKind, meaning: str, *columns: Column) -> Table:
    return Table(name=name, prov=prov, meaning=meaning, columns=columns)


_SMALL = (
    _table(
        "agents",
        "agent",
        "Who takes part: providers, organisations (rightsholders too), people, software.",
        _has("agent_id", _TEXT, "the name other tables use: provider, approver, granted_by, rightsholder"),
        _has("kind", _TEXT, "provider, organisation, person or software"),
        _has("name", _TEXT),
    ),
    _table(
        "terms",
        "entity",
        "Every version of a terms document that binds something here or did, from all registry files.",
        _has("terms_id", _TEXT),
        _has("provider", _TEXT),
        _has("title", _TEXT),
        _has("version", _TEXT),
        _has("kind", _TEXT, "api_terms, consumer_terms, usage_policy, model_licence, host_terms, own or data_licence"),
        _may("effective", _DAY),
        _may("superseded", _DAY, "the first day it no longer binds"),
        _has("outputs_train", _TEXT, "allowed, conditional, unclear or prohibited"),
        _has("outputs_train_competing", _TEXT, "the same, for a student that may compete"),
        _has("spdx", _TEXT, "its licence, a row of licences"),
        _has("confidence", _TEXT, "high, medium or low"),
        _has("reviewed", _DAY, "the latest review known here"),
        _has("review_expires", _YES, "false for licences of weights, which do not change"),
        _may("text_sha256", _HASH, "the digest its registry entry gives"),
        _has("source", _TEXT, "where the text was read"),
        _may("quote", _TEXT),
        _may("quote_location", _TEXT),
    ),
    _table(
        "terms_reviews",
        "activity",
        "Each review of a terms document: those recorded here and the date of the registry.",
        _has("terms_id", _TEXT),
        _has("reviewed", _DAY),
        _may("reviewed_by", _TEXT),
    ),
    _table(
        "terms_texts",
        "entity",
        "Snapshots of the text of terms.",
        _has("terms_id", _TEXT),
        _has("text_sha256", _HASH),
        _has("taken_time", _TIME),
        _has("held", _YES, "whether the text itself is kept in this corpus"),
    ),
    _table(
        "terms_duties",
        "entity",
        "What a terms document asks for that a machine can check.",
        _has("terms_id", _TEXT),
        _has("duty", _TEXT, "attribution, naming, notice_file, ..."),
        _has("applies_to", _TEXT, "dataset, student or service"),
        _has("text", _TEXT),
    ),
    _table(
        "terms_sets",
        "plan",
        "The documents of each set of terms; a set without documents has no row.",
        _has("terms_set_no", _NO),
        _has("terms_set_id", _HASH),
        _has("terms_id", _TEXT),
    ),
    _table(
        "licences",
        "entity",
        "What each licence expression found in sources.licence, terms.spdx or students.base_licence means.",
        _has("licence", _TEXT, "the expression as it stands there"),
        _has("known", _YES, "false: nobody has said what it allows"),
        _has("attribution", _YES),
        _has("share_alike", _YES),
        _has("non_commercial", _YES),
        _has("no_derivatives", _YES),
        _may("notice", _TEXT, "what a notice file must say"),
    ),
    _table(
        "teachers",
        "agent",
        "Each teacher by the route it was reached through; one model by two routes is two teachers.",
        _has("teacher_no", _NO),
        _has("teacher_id", _TEXT, "its name in specs, such as openai/gpt-5.2"),
        _has("provider", _TEXT),
        _has("model", _TEXT, "the model whose terms were checked"),
        _may("revision", _TEXT),
        _has("route", _TEXT, "api, consumer, aggregator, cloud, self_hosted, mock, or imported: nobody was asked"),
        _has("host", _TEXT),
        _may("region", _TEXT),
        _may("weights_sha256", _HASH),
        _has("unpaid", _YES, "reached by an unpaid tier"),
    ),
    _table(
        "agreements",
        "plan",
        "What providers have agreed to in writing about personal data.",
        _has("agreement_id", _TEXT),
        _has("host", _TEXT),
        _has("kind", _TEXT, "dpa, zero_retention, order_form or other"),
        _has("classes", _TEXTS, "classes of personal data it covers; empty: all"),
        _has("regions", _TEXTS, "regions it holds for; empty: any"),
        _may("retention_days", _NO),
        _may("valid_from", _DAY),
        _may("valid_until", _DAY, "the last day it holds"),
    ),
    _table(
        "sources",
        "entity",
        "Where seed text comes from.",
        _has("source_no", _NO),
        _has("source_id", _TEXT),
        _has("title", _TEXT),
        _may("locator", _TEXT),
        _has("licence", _TEXT, "a row of licences"),
        _may("rightsholder", _TEXT),
        _may("sha256", _HASH),
        _may("acquisition", _TEXT, "own, licensed, public_dataset, crawl, user_data or synthetic"),
        _may("acquired", _DAY),
        _may("copyright_status", _TEXT, "copyright, public_domain, mixed or unknown"),
        _has("personal_data", _TEXTS, "classes of personal data it holds"),
        _may("lawful_basis", _TEXT),
        _has("processing_regions", _TEXTS, "the only regions its text may be sent to; empty: any"),
        _has("generated_by", _TEXTS, "terms documents that models which wrote it were under"),
    ),
    _table(
        "runs",
        "activity",
        "Each run of a task.",
        _has("run_no", _NO),
        _has("run_id", _TEXT),
        _has("task", _TEXT),
        _has("spec_digest", _HASH),
        _may("prompt_digest", _HASH),
        _may("actor", _TEXT),
        _has("status", _TEXT),
        _has("student_competes", _TEXT, "yes, no or unknown"),
        _has("commercial", _YES),
        _has("student_distribution", _TEXT, "internal, hosted or weights_released"),
        _has("started_time", _TIME),
        _may("ended_time", _TIME),
    ),
    _table(
        "decisions",
        "activity",
        "Each decision of the policy.",
        _has("decision_no", _NO),
        _may("run_no", _NO),
        _has("stage", _TEXT, "plan, request, export, train or release"),
        _has("subject_kind", _TEXT, "teacher, source, dataset or student"),
        _has("subject", _TEXT, "its name: teacher_id, source_id, name-version or student_id"),
        _may("role", _TEXT),
        _has("outcome", _TEXT, "allow, needs_waiver or deny"),
        _may("estimated_microusd", _COUNT, "what it would have cost, where a plan was stopped"),
        _may("policy_digest", _HASH),
        _may("registry_digest", _HASH),
        _has("decided_time", _TIME),
    ),
    _table(
        "decision_reasons",
        "relation",
        "What each rule found, for every decision.",
        _has("decision_no", _NO),
        _has("rule", _TEXT),
        _may("terms_id", _TEXT),
        _has("outcome", _TEXT),
        _has("text", _TEXT),
    ),
    _table(
        "decision_waivers",
        "relation",
        "The waivers that lifted something in a decision.",
        _has("decision_no", _NO),
        _has("waiver_id", _TEXT),
    ),
    _table(
        "waivers",
        "plan",
        "Who accepted what the policy only allows with a waiver.",
        _has("waiver_id", _TEXT),
        _has("terms_ids", _TEXTS),
        _has("rules", _TEXTS, "empty: any rule"),
        _has("task", _TEXT, "a glob; empty: any task"),
        _has("teacher", _TEXT, "a glob; empty: any teacher"),
        _has("granted_by", _TEXT),
        _has("reason", _TEXT),
        _may("evidence_sha256", _HASH),
        _has("granted", _DAY),
        _has("expires", _DAY, "the last day it holds"),
        _may("ended_time", _TIME, "when it was taken back"),
    ),
    _table(
        "datasets",
        "entity",
        "Each version of a dataset.",
        _has("dataset_no", _NO),
        _has("name", _TEXT),
        _has("version", _TEXT),
        _has("status", _TEXT, "selected, sealed, revoked, or validation: what a run's calibration was chosen on"),
        _may("manifest_sha256", _HASH),
        _may("merkle_root", _HASH),
        _may("effective_licence", _TEXT),
        _has("created_time", _TIME, "when it was selected or sealed, whichever is the latest"),
        _may("revoked_time", _TIME),
    ),
    _table(
        "students",
        "entity",
        "Each student that was trained.",
        _has("student_no", _NO),
        _has("student_id", _TEXT),
        _may("run_no", _NO),
        _may("base_model", _TEXT, "the weights it began with"),
        _may("base_licence", _TEXT, "a row of licences"),
        _has("base_terms", _TEXTS, "terms documents of those weights"),
        _may("weights_sha256", _HASH),
        _has("student_competes", _TEXT, "yes, no or unknown"),
        _has("commercial", _YES),
        _has("student_distribution", _TEXT),
        _has("status", _TEXT, "trained, or withdrawn"),
        _has("trained_time", _TIME),
    ),
    _table(
        "student_datasets",
        "relation",
        "Which datasets a student has seen, and for what.",
        _has("student_no", _NO),
        _has("dataset_no", _NO),
        _has("role", _TEXT, "train, calibration or selection"),
        _may("first_used_time", _TIME),
    ),
    _table(
        "releases",
        "activity",
        "Each release of a student.",
        _has("release_id", _TEXT),
        _has("student_no", _NO),
        _has("name", _TEXT, "the name it goes by outside"),
        _has("approver", _TEXT),
        _has("student_distribution", _TEXT),
        _may("policy_digest", _HASH),
        _may("registry_digest", _HASH),
        _has("waiver_ids", _TEXTS),
        _has("released_time", _TIME),
        _may("withdrawn_time", _TIME),
    ),
    _table(
        "erasures",
        "activity",
        "What was erased, why, and what it reached.",
        _has("erasure_no", _NO),
        _has("erasure_id", _TEXT),
        _has("selector", _TEXT, "source, record or subject"),
        _may("subject", _TEXT, "the source's id; of a record or a person, only a commitment"),
        _has("erased_by", _TEXT),
        _has("reason", _TEXT),
        _has("records", _COUNT),
        _has("datasets", _TEXTS, "revoked, by name-version"),
        _has("students", _TEXTS, "to be trained again or retired"),
        _has("releases", _TEXTS),
        _has("counted", _YES, "false: it kept no counts of what it took"),
        _has("erased_time", _TIME),
    ),
    _table(
        "erased_uses",
        "relation",
        "What an erasure took, in numbers: no record of it is here any more.",
        _has("erasure_no", _NO),
        _has(
            "about", _TEXT, "record, use (by a teacher, with terms and role) or source: what the records are counted by"
        ),
        _may("dataset_no", _NO, "the dataset they were in; null: all that went, wherever they were"),
        _may("split", _TEXT),
        _may("kind", _TEXT, "of records: response, label, preference or judgement"),
        _may("teacher_no", _NO),
        _may("terms_set_no", _NO, "the terms that governed the answers"),
        _may("role", _TEXT),
        _may("model_served", _TEXT),
        _may("source_id", _TEXT),
        _has("records", _COUNT),
        _has("by_parents", _COUNT, "those of them that were touched only through what they were made from"),
        _has("input_tokens", _COUNT),
        _has("output_tokens", _COUNT),
    ),
    _table(
        "checkpoints",
        "entity",
        "Signed roots of the ledger.",
        _has("size", _COUNT, "how many events it covers"),
        _has("root", _HASH),
        _may("key_id", _TEXT),
        _has("signed_time", _TIME),
    ),
)

_LARGE = (
    _table(
        "events",
        "activity",
        "The ledger: what happened, without what it says.",
        _has("seq", _COUNT, "from 1"),
        _has("kind", _TEXT),
        _has("commitment", _HASH),
        _has("erased", _YES, "payload and nonce were destroyed"),
        _has("occurred_time", _TIME),
    ),
    _table(
        "requests",
        "activity",
        "Each question of a run to a teacher, once per run; a cached answer is a request that names its origin.",
        _has("request_no", _NO),
        _has("request_key", _HASH),
        _has("run_no", _NO),
        _has("teacher_no", _NO),
        _has("terms_set_no", _NO, "the terms this run checked"),
        _has("from_cache", _YES, "true: nothing was sent, an earlier answer was used"),
        _may("origin_request_no", _NO, "the request that was really sent, where this corpus sent it"),
        _may("origin_terms_set_no", _NO, "the terms of the request that was really sent; they govern the answer"),
        _may("origin_sent_time", _TIME),
        _has("state", _TEXT, "answered, unanswered or unknown; all but replays were sent"),
        _may("model_served", _TEXT, "the model's name in the answer; null: the provider gave none"),
        _may("provider_request_id", _TEXT),
        _may("region", _TEXT, "where it was processed, as far as known"),
        _may("personal_data", _TEXT, "classes of personal data in it, sorted, with commas between"),
        _has("input_tokens", _NO),
        _has("output_tokens", _NO),
        _has("cost_microusd", _COUNT),
        _has("sent_time", _TIME, "of a replay: when it was looked up, if known, else origin_sent_time"),
    ),
    _table(
        "records",
        "entity",
        "Each record that is here; of erased ones see erased_uses.",
        _has("record_no", _NO),
        _has("record_id", _HASH),
        _has("run_no", _NO),
        _has("kind", _TEXT, "response, label, preference or judgement"),
        _has("licence", _TEXT, "the licence expression it was stored with"),
        _may("shard", _TEXT, "its file, relative to the corpus"),
        _may("personal_data", _TEXT, "kinds of personal data found in it, sorted, with commas between"),
        _has("input_tokens", _NO),
        _has("output_tokens", _NO),
        _has("created_time", _TIME),
    ),
    _table(
        "record_requests",
        "relation",
        "wasGeneratedBy: which requests a record comes from, and what their answers were used as.",
        _has("record_no", _NO),
        _has("request_no", _NO),
        _has(
            "role",
            _TEXT,
            "response, rationale, logprobs, preference, judge, filter, simulated_user or paraphrase",
        ),
    ),
    _table(
        "record_sources",
        "relation",
        "used: which sources stand in a record.",
        _has("record_no", _NO),
        _has("source_no", _NO),
        _has("role", _TEXT, "seed, context, few_shot or label"),
    ),
    _table(
        "record_parents",
        "relation",
        "wasDerivedFrom: which records a record was made from.",
        _has("record_no", _NO),
        _has("parent_no", _NO),
        _has("how", _TEXT, "seed, or how else"),
    ),
    _table(
        "dataset_records",
        "relation",
        "Which records are in a version of a dataset.",
        _has("dataset_no", _NO),
        _has("record_no", _NO),
        _has("split", _TEXT),
    ),
)

TABLES: Final[Mapping[str, Table]] = {table.name: table for table in (*_SMALL, *_LARGE)}
"""All tables of the lineage, by name."""

SCHEMAS: Final[Mapping[str, pa.Schema]] = {name: table.schema for name, table in TABLES.items()}
"""Their Arrow schemas."""


def writer_options(name: str) -> dict[str, Any]:
    """How a table is written so that it stays small and is read fast: for ``pq.write_table`` or ``pq.ParquetWriter``.

    Words are dictionary-encoded, running numbers and times as differences; nothing else repeats.
    """
    columns = TABLES[name].columns
    runs = (_NO, _COUNT, _TIME)
    return {
        "compression": "zstd",
        "use_dictionary": [_leaf(column) for column in columns if column.type in (_TEXT, _TEXTS)],
        "column_encoding": {column.name: "DELTA_BINARY_PACKED" for column in columns if column.type in runs},
        "write_statistics": [column.name for column in columns if column.type in (*runs, _TEXT)],
        "write_page_checksum": True,
    }


def _leaf(column: Column) -> str:
    return f"{column.name}.list.element" if column.type == _TEXTS else column.name


VIEWS: Final[Mapping[str, str]] = {
    # Which records a record was made from, itself first. `union` drops repeats, so that a cycle ends too.
    "v_closure": """
with recursive made_from(record_no, ancestor_no) as (
    select record_no, parent_no from record_parents
    union
    select made_from.record_no, earlier.parent_no
    from made_from join record_parents earlier on earlier.record_no = made_from.ancestor_no
)
select record_no, record_no as ancestor_no from records
union all
select record_no, ancestor_no from made_from where ancestor_no <> record_no
""",
    # Every request with the terms and the time that govern its answer: those of its origin, where it is a replay.
    "v_requests": """
select
    request_no, run_no, teacher_no, from_cache,
    coalesce(origin_terms_set_no, terms_set_no) as terms_set_no,
    coalesce(origin_sent_time, sent_time) as sent_time
from requests
""",
    # Who was asked under which terms, whatever became of the answers.
    "v_asked": """
select teacher_no, terms_set_no from v_requests
union
select teacher_no, terms_set_no from erased_uses where about = 'use'
""",
    # Every record with every request it comes from, itself or through a parent, in any role.
    "v_use": """
select closure.record_no, closure.ancestor_no, made.role, request.request_no, request.teacher_no, request.terms_set_no
from v_closure closure
join record_requests made on made.record_no = closure.ancestor_no
join v_requests request on request.request_no = made.request_no
""",
    # The same with each terms document that governs those requests.
    "v_touch": """
select used.record_no, used.ancestor_no, used.role, used.request_no, used.teacher_no, terms_set.terms_id
from v_use used join terms_sets terms_set on terms_set.terms_set_no = used.terms_set_no
""",
    # Every record with every source that stands in it, itself or through a parent.
    "v_source": """
select closure.record_no, closure.ancestor_no, used.source_no, used.role
from v_closure closure join record_sources used on used.record_no = closure.ancestor_no
""",
    # Names as people write them.
    "v_dataset": "select *, name || '-' || version as dataset from datasets",
    "v_record": "select *, lower(hex(record_id)) as record from records",
}
"""The views every question may use, in the order in which they build on each other."""
