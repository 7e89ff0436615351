"""What the tables and columns of a query mean, in a lawyer's words, where the lineage does not say it itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COLUMNS: Final[Mapping[str, str]] = {
    "acquired": "the day it was obtained",
    "actor": "who started the run, as the machine knows them",
    "after": "state afterwards",
    "agreement_id": "the agreement's name in the specs",
    "approver": "who approved it",
    "attempt": "which try of the same question, from 1",
    "attribution": "its author must be named",
    "batch_id": "the batch it belongs to; empty: asked at once",
    "before": "state before",
    "by": "who did it",
    "cached_input_tokens": "those of the input tokens that the provider had cached",
    "calibrated_label": "the label after calibration; filled in in datasets",
    "calibrated_logprobs": "the labels' log-probabilities after calibration",
    "call_id": "number of the call",
    "cap": "what may be used at most; empty: no cap",
    "closed_time": "when its outcome was known",
    "commercial": "whether the student is meant for commercial use",
    "commitment": "digest of the event with a secret nonce",
    "committed_time": "when it was committed",
    "compute_us": "processor time on this machine, in microseconds",
    "conversation": "the prompt as it was sent, as JSON, where tools or calls of tools belong to it",
    "counted": "false: it kept no counts of what it took",
    "cost_microusd": "what it cost, in millionths of a dollar",
    "created_time": "when it was made",
    "dataset": "a dataset version, as name-version",
    "dataset_no": "number of the dataset version",
    "dataset_split": "train, validation or gold",
    "decided_time": "when it was decided",
    "decision": "the whole decision as JSON, with rules and clauses",
    "decision_id": "number of the decision",
    "decision_no": "number of the decision",
    "detail": "what exactly was found",
    "effective": "the first day it binds",
    "effective_licence": "the licence expression it is under as a whole",
    "ended_time": "when it ended",
    "erased_by": "who erased",
    "erased_time": "when it was erased",
    "erasure_id": "the erasure's name",
    "erasure_no": "number of the erasure",
    "error": "what went wrong, if something did",
    "evidence_sha256": "digest of the evidence that was filed",
    "facts": "what is known of it, as JSON",
    "finish_reason": "why the answer ended: stop, length, refusal …",
    "first_used_time": "when it was first used",
    "from_cache": "true: an earlier answer was used, nothing was sent",
    "granted": "the day it was granted",
    "granted_by": "who granted it",
    "host": "the server that was asked",
    "input": "the text the record is about",
    "input_tokens": "tokens of the question",
    "intended_time": "when it was written down that it would be sent",
    "item_id": "the item, by its id in the seed file",
    "kept": "true: only remarked on; false: left out",
    "key_id": "the key that signed",
    "kind": "what kind it is",
    "label": "the label that was given",
    "label_logprobs": "the labels' log-probabilities, in the order of label_names",
    "label_names": "the labels there were to choose from",
    "latency_ms": "how long the answer took, in milliseconds",
    "lawful_basis": "the lawful basis told for personal data in it",
    "licence_expression": "the licence of the record, as an SPDX expression",
    "locator": "where it was found: an address or a reference",
    "logprob_kind": "raw, or after sampling",
    "manifest": "files, rows and digests, as JSON",
    "manifest_sha256": "digest of its manifest",
    "merkle_root": "root of the hashes of its records",
    "messages": "the conversation that was sent",
    "metric": "what was measured",
    "microusd": "what it cost, in millionths of a dollar; empty: not known yet",
    "microusd_before": "what was booked before",
    "model_requested": "the model that was asked for",
    "model_served": "the model that answered, in the provider's word",
    "name": "its name",
    "no_derivatives": "what derives from it may not be passed on",
    "non_commercial": "only for non-commercial use",
    "occurred_time": "when it happened",
    "origin": "where the cap comes from",
    "origin_cost_microusd": "of a cached answer: what it cost when it was bought",
    "origin_sent_time": "when the request that was really sent went out",
    "other": "the item or record it is like",
    "outcome": "how it was decided",
    "output_tokens": "tokens of the answer",
    "outputs_train": "what the terms say of training: allowed, conditional, unclear or prohibited",
    "parent_ids": "the records it was made from",
    "parent_no": "number of the record it was made from",
    "per": "total, day or month",
    "pii_kinds": "kinds of personal data found in it",
    "policy_digest": "digest of the rules it was decided by",
    "price_version": "the price list that was used",
    "promised": "reserved for calls under way",
    "prompt_digest": "digest of the prompt file",
    "provider": "who runs the service, or wrote the terms",
    "provider_batch_id": "the provider's own id of the batch",
    "provider_request_id": "the provider's own id of the answer, to ask them about it",
    "quote": "the clause, word for word",
    "quote_location": "where the clause stands",
    "reason": "why",
    "reasoning": "the teacher's reasoning, if it gave any",
    "reasoning_tokens": "tokens of the reasoning",
    "received_time": "when the answer was received",
    "reconciled_time": "when it was settled by hand or by the provider's bill",
    "record_id": "the record's id",
    "record_no": "number of the record",
    "records": "how many records",
    "region": "where it is processed",
    "registry_digest": "digest of the terms registry it was decided by",
    "release_id": "the release's name",
    "released_time": "when it was released",
    "releases": "the releases it reached",
    "repeat_of": "the item it repeats",
    "request_key": "digest of the question: the same question has the same key",
    "request_keys": "the questions on the way to it",
    "request_no": "number of the request",
    "requests": "how many questions are in it",
    "reserved_compute_us": "processor time set aside",
    "reserved_microusd": "money set aside before the call, in millionths of a dollar",
    "reserved_time": "when money was set aside, just before the call",
    "reserved_tokens": "tokens set aside",
    "response": "what the teacher answered",
    "retention_days": "how long the provider keeps what it is sent",
    "reviewed": "the day of the review",
    "reviewed_by": "who reviewed it",
    "revision": "the revision of the weights",
    "revoked_time": "when it was revoked",
    "rightsholder": "who owns the rights",
    "role": "what the answer was used as",
    "root": "root of the hashes of its events",
    "route": "api, consumer, aggregator, cloud, self_hosted or mock",
    "rows": "how many rows it has",
    "rule": "the rule that was asked, R01 to R16",
    "run_id": "the run it belongs to",
    "run_no": "number of the run",
    "said": "what the provider said last, as JSON",
    "sample_index": "which of several answers to one question, from 0",
    "schema_version": "version of the columns",
    "scope": "whom the money is counted for: corpus, run, teacher …",
    "score": "the measured value",
    "sealed_time": "when it was sealed, or selected",
    "sent_time": "when the question was sent",
    "settled": "really used, as billed",
    "sha256": "digest of the file",
    "share_alike": "what derives from it must be under the same licence",
    "signed_time": "when it was signed",
    "size_bytes": "size of the file",
    "source_id": "the source's name in the specs",
    "source_ids": "the sources that stand in it",
    "source_no": "number of the source",
    "source_sha256": "digest of the provider's bill that was read",
    "spec_digest": "digest of the spec",
    "split": "part of the dataset: train, test …",
    "stage": "the step at which it happened",
    "started_time": "when it began",
    "state": "how far it is",
    "status": "how far it is",
    "structured": "the answer as JSON, where a schema was asked for",
    "student_distribution": "what the student is for: internal, hosted or weights_released",
    "student_id": "the student's id",
    "student_no": "number of the student",
    "subject": "whom or what it is about",
    "submitted_time": "when the provider took it",
    "taken_time": "when the text was taken",
    "task": "the task, by its name in the spec",
    "teacher": "the teacher, by its name in the specs",
    "teacher_no": "number of the teacher",
    "teacher_role": "why this teacher was asked: primary, fallback, mixture or judge",
    "terms_id": "names a version of a terms document, a row of terms",
    "terms_ids": "the terms documents it is for",
    "terms_set_id": "the set of terms the question was asked under",
    "terms_set_no": "number of the set of terms",
    "text": "in words",
    "text_sha256": "digest of the text",
    "threshold": "the value from which it was left out or remarked on",
    "title": "its title",
    "token_bytes": "the tokens of the answer, as bytes",
    "token_ids": "the tokens of the answer, as numbers",
    "token_logprobs": "log-probabilities of the tokens",
    "tokenizer": "the tokenizer of the tokens",
    "tokens": "tokens that were used",
    "tool_calls": "calls of tools in the answer, as JSON",
    "topk_bytes": "runners-up of each token, as bytes",
    "topk_ids": "runners-up of each token, as numbers",
    "topk_len": "how many runners-up each token has",
    "topk_logprobs": "log-probabilities of the runners-up",
    "trace_kind": "how the reasoning was given: raw, summary, omitted or encrypted",
    "trained_time": "when it was trained",
    "truncated": "true: the answer is not whole",
    "unconfirmed": "perhaps used: nobody knows how a call ended",
    "unit": "microusd, tokens, requests or compute_us",
    "valid_from": "the first day it holds",
    "verdicts": "what each check said of it",
    "version": "its version",
    "waiver_id": "the waiver's name",
    "waiver_ids": "the waivers that count for it",
    "weights_sha256": "digest of the weights",
    "withdrawn_time": "when it was withdrawn",
}
"""What a column of this name says in every table that does not say it itself."""

TABLES: Final[Mapping[str, tuple[str, str]]] = {
    "records": ("entity", "Each answer that was kept, with its text: the rows of the shards."),
    "runs": ("activity", "Each run of a task."),
    "calls": ("activity", "Each call of a teacher, each try apart, with the money set aside and used."),
    "balances": ("entity", "What was used of each budget, and its cap."),
    "batches": ("activity", "Batches of questions handed to providers."),
    "reconciliations": ("activity", "Calls whose cost was set right later."),
    "drops": ("activity", "Items and answers that a run left out, and why."),
    "remarks": ("activity", "What a check noticed and let through."),
    "findings": ("activity", "What was left out of a dataset version or remarked on, and why."),
    "decisions": (
        "activity",
        "Decisions of the policy as they were written down; lineage.decisions has them in columns.",
    ),
    "shards": ("entity", "The files with the records, and their digests."),
    "datasets": ("entity", "Each version of a dataset; lineage.datasets has its digests and licence in columns."),
    "students": ("entity", "Each student that was trained; lineage.students has its base and its use in columns."),
}
"""What the tables beside the lineage are: in PROV, and in words."""

SPECIAL: Final[Mapping[tuple[str, str], str]] = {
    ("records", "kind"): "response, label, preference or judgement",
    ("records", "record_id"): "the record's id, in hex",
    ("calls", "state"): "promised, settled, unknown, released or overrun",
    ("calls", "role"): "what it was asked for, and as which teacher",
    ("batches", "state"): "intended, submitted, ended or freed",
    ("shards", "dataset"): "the task whose answers are in it",
    ("shards", "split"): "train, validation or gold",
    ("shards", "name"): "the file, relative to the corpus",
    ("datasets", "status"): "selected, sealed or revoked",
    ("students", "dataset"): "the dataset version it learnt from",
    ("lineage.events", "kind"): "what happened, such as decided, dataset_sealed or released",
    ("lineage.runs", "status"): "how it ended, or running",
}
"""What a column says in one table only."""

VIEWS: Final[Mapping[str, tuple[str, str, Mapping[str, str]]]] = {
    "v_closure": (
        "wasDerivedFrom",
        "Each record with every record it was made from, however many steps back; itself too.",
        {"record_no": "records", "ancestor_no": "records.record_no"},
    ),
    "v_requests": (
        "activity",
        "Each request with the terms and the time that govern its answer: those of the first asking, if it was cached.",
        {
            "request_no": "requests",
            "run_no": "requests",
            "teacher_no": "requests",
            "from_cache": "requests",
            "terms_set_no": "requests",
            "sent_time": "requests",
        },
    ),
    "v_asked": (
        "wasAssociatedWith",
        "Each teacher with each set of terms it was asked under, whatever became of the answers.",
        {"teacher_no": "requests", "terms_set_no": "requests"},
    ),
    "v_use": (
        "wasGeneratedBy",
        "Each record with every request it comes from in any role, its own or a parent's.",
        {
            "record_no": "records",
            "ancestor_no": "records.record_no",
            "role": "record_requests",
            "request_no": "requests",
            "teacher_no": "requests",
            "terms_set_no": "requests",
        },
    ),
    "v_touch": (
        "wasGeneratedBy",
        "The same with each terms document that governs those requests: who touched a record, and under what terms.",
        {
            "record_no": "records",
            "ancestor_no": "records.record_no",
            "role": "record_requests",
            "request_no": "requests",
            "teacher_no": "requests",
            "terms_id": "terms_sets",
        },
    ),
    "v_source": (
        "used",
        "Each record with every source that stands in it or in what it was made from.",
        {
            "record_no": "records",
            "ancestor_no": "records.record_no",
            "source_no": "record_sources",
            "role": "record_sources",
        },
    ),
    "v_dataset": (
        "entity",
        "Dataset versions by the name people write.",
        {"*": "datasets", "dataset": "datasets.name"},
    ),
    "v_record": (
        "entity",
        "Records of the lineage with their id in hex, as the records table writes it.",
        {"*": "records", "record": "terms.terms_id"},
    ),
}
"""The views of the lineage: what each is, and which table of the lineage (and column, if its name differs) each column
is of; ``*`` are all columns of one."""

VIEW_COLUMNS: Final[Mapping[str, str]] = {
    "ancestor_no": "number of the record it was made from, or its own",
    "dataset": "name-version",
    "record": "the record's id, in hex",
}
"""What columns of views say that no table has."""

EXAMPLES: Final[tuple[tuple[str, str], ...]] = (
    (
        "Which teachers touched a dataset, in which role, under which terms, and how many of its records?",
        """
select dataset, teacher_id, role, terms_id, count(distinct record_no) as records
from v_touch join teachers using (teacher_no)
join dataset_records using (record_no) join v_dataset using (dataset_no)
group by all order by dataset, records desc, teacher_id, role, terms_id
""".strip(),
    ),
    (
        "Which licences do the sources of each dataset have, and who owns the rights?",
        """
select dataset, source_id, licence, rightsholder, count(distinct record_no) as records
from v_source join sources using (source_no)
join dataset_records using (record_no) join v_dataset using (dataset_no)
group by all order by dataset, source_id
""".strip(),
    ),
    (
        "What do the terms that bind something here say of training, and where?",
        """
select terms_id, title, effective, superseded, outputs_train, quote, quote_location, reviewed
from terms order by terms_id
""".strip(),
    ),
    (
        "What was decided about whom, by which rule, and under which waiver?",
        """
select decided_time, stage, subject, d.role, d.outcome, rule, r.outcome as rule_outcome, terms_id, waiver_id
from lineage.decisions d join decision_reasons r using (decision_no)
left join decision_waivers using (decision_no) order by decision_no, rule, waiver_id
""".strip(),
    ),
    (
        "Which students were trained on which datasets, and where were they released?",
        """
select student_id, base_model, base_licence, dataset, u.role, r.name as released_as, approver, released_time
from lineage.students s join student_datasets u using (student_no) join v_dataset using (dataset_no)
left join releases r using (student_no) order by student_id, dataset
""".strip(),
    ),
    (
        "What did a record say, who wrote it, and under which licence was it stored?",
        """
select record, licence, teacher_id, made.role, input, response
from v_record join record_requests made using (record_no) join lineage.requests using (request_no)
join teachers using (teacher_no) join main.records text on text.record_id = record
order by record limit 20
""".strip(),
    ),
)
"""Questions to begin with, and the SQL that answers them."""
