"""Lineage of a corpus that never was: any number of records, with something planted for each of the twenty questions.

Five teachers, nine terms documents, 500 sources, three datasets, three students. Zone A (the first half of the records)
feeds ``alpha-1``, zone B feeds ``beta-1``; ``clean`` learnt from alpha, ``mixed`` from beta with alpha for selection,
``old`` from gamma, of which an erasure left nothing but counts.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusgen.provenance.lineage import SCHEMAS, writer_options

TODAY = date(2026, 8, 1)
BEGAN = datetime(2026, 1, 1)
DAYS = 200
"""Requests are spread over so many days from BEGAN on."""
CHANGED = date(2026, 3, 1)
"""The day acme's new terms took the place of the old ones."""

ACME, BOREALIS, COBALT, DORADO, OWN = range(5)
ACME_2025, ACME_2026, BOREALIS_SET, COBALT_SET, DORADO_SET, OWN_SET, NO_TERMS = range(7)
TERMS_SETS = {
    ACME_2025: ("acme-api-2025", "acme-usage"),
    ACME_2026: ("acme-api-2026", "acme-usage"),
    BOREALIS_SET: ("borealis-weights",),
    COBALT_SET: ("cobalt-api", "cobalt-usage"),
    DORADO_SET: ("dorado-host", "dorado-model"),
    OWN_SET: ("own-terms",),
}
SET_OF = np.array([ACME_2026, BOREALIS_SET, COBALT_SET, DORADO_SET, OWN_SET])
PROVIDERS = ("acme", "borealis", "cobalt", "dorado", "own")
SOURCES = 500
LATE, NO_REQUEST, NO_SOURCE, NO_DOCUMENTS = 11, 7, 5, 3
"""Planted: requests on superseded terms, and records of beta without request, source or terms."""

Columns = dict[str, Any]


def day(text: str) -> date:
    return date.fromisoformat(text)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def hashed(number: int) -> bytes:
    return number.to_bytes(32, "big")


def terms_row(terms_id: str, train: str, competing: str, **more: Any) -> Columns:
    provider = terms_id.split("-", maxsplit=1)[0]
    return {
        "terms_id": terms_id,
        "provider": provider,
        "title": f"{provider} terms",
        "version": "1",
        "kind": "api_terms",
        "effective": day("2025-01-01"),
        "superseded": None,
        "outputs_train": train,
        "outputs_train_competing": competing,
        "spdx": f"LicenseRef-{provider}",
        "confidence": "high",
        "reviewed": day("2026-06-01"),
        "review_expires": True,
        "text_sha256": None,
        "source": "https://terms.example",
        "quote": None,
        "quote_location": None,
    } | more


def source_rows() -> list[Columns]:
    licences = ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "LicenseRef-nobody-knows"]
    return [
        {
            "source_no": number,
            "source_id": f"source-{number:03d}",
            "title": f"Source {number}",
            "locator": None,
            "licence": licences[number] if number < 3 else "CC-BY-4.0" if number % 2 else "CC0-1.0",
            "rightsholder": f"holder-{number % 40:02d}" if number % 5 else None,
            "sha256": hashed(number),
            "acquisition": ("licensed", "public_dataset", "crawl", None)[number % 4],
            "acquired": day("2025-12-01"),
            "copyright_status": ("copyright", "public_domain", None)[number % 3],
            "personal_data": ["contact"] if number % 50 == 7 else [],
            "lawful_basis": None,
            "processing_regions": [],
            "generated_by": ["dorado-model"] if number == 9 else [],
        }
        for number in range(SOURCES)
    ]


def licence_row(licence: str, *bits: str, notice: str | None = None) -> Columns:
    names = ("attribution", "share_alike", "non_commercial", "no_derivatives")
    known = not licence.endswith("nobody-knows")
    return {"licence": licence, "known": known, **{name: name in bits for name in names}, "notice": notice}


def small_tables() -> dict[str, list[Columns]]:
    """Everything that does not grow with the records."""
    return of_terms() | of_people() | of_work() | of_ledger() | decision_tables()


def of_terms() -> dict[str, list[Columns]]:
    """Terms documents and what is known of them."""
    return {
        "terms": [
            terms_row("acme-api-2025", "conditional", "conditional", superseded=CHANGED, text_sha256=hashed(25)),
            terms_row("acme-api-2026", "conditional", "conditional", effective=CHANGED, reviewed=day("2026-02-20")),
            terms_row("acme-usage", "allowed", "allowed", kind="usage_policy"),
            terms_row("borealis-weights", "allowed", "allowed", kind="model_licence", review_expires=False),
            terms_row("cobalt-api", "prohibited", "prohibited", reviewed=day("2025-06-01")),
            terms_row("cobalt-usage", "unclear", "unclear"),
            terms_row("dorado-host", "allowed", "allowed", kind="host_terms"),
            terms_row("dorado-model", "allowed", "prohibited"),
            terms_row("own-terms", "allowed", "allowed", kind="own", review_expires=False),
        ],
        "terms_reviews": [
            *(
                {"terms_id": name, "reviewed": day("2025-12-20"), "reviewed_by": "ada"}
                for name in ("acme-api-2025", "acme-usage", "cobalt-usage", "dorado-host", "dorado-model")
            ),
            {"terms_id": "acme-api-2026", "reviewed": day("2026-02-20"), "reviewed_by": "ada"},
            {"terms_id": "acme-usage", "reviewed": day("2026-03-15"), "reviewed_by": "ada"},
            {"terms_id": "acme-usage", "reviewed": day("2026-06-01"), "reviewed_by": None},
            {"terms_id": "cobalt-api", "reviewed": day("2025-06-01"), "reviewed_by": None},
        ],
        "terms_texts": [
            {"terms_id": "acme-api-2026", "text_sha256": hashed(26), "taken_time": moment("2026-03-02"), "held": True},
            {"terms_id": "acme-api-2026", "text_sha256": hashed(27), "taken_time": moment("2026-05-02"), "held": True},
            {"terms_id": "dorado-model", "text_sha256": hashed(4), "taken_time": moment("2026-07-30"), "held": False},
        ],
        "terms_duties": [
            {"terms_id": terms_id, "duty": duty, "applies_to": to, "text": f"{duty} for {terms_id}"}
            for terms_id, duty, to in (
                ("acme-api-2026", "attribution", "student"),
                ("borealis-weights", "notice_file", "student"),
                ("cobalt-usage", "ai_label", "service"),
                ("dorado-model", "naming", "student"),
                ("own-terms", "ai_label", "dataset"),
            )
        ],
        "terms_sets": [
            {"terms_set_no": number, "terms_set_id": hashed(number), "terms_id": terms_id}
            for number, documents in TERMS_SETS.items()
            for terms_id in documents
        ],
        "licences": [
            licence_row("CC-BY-4.0", "attribution"),
            licence_row("CC-BY-SA-4.0", "attribution", "share_alike"),
            licence_row("CC-BY-NC-4.0", "attribution", "non_commercial"),
            licence_row("CC0-1.0"),
            licence_row("Apache-2.0", notice="NOTICE"),
            licence_row("LicenseRef-nobody-knows"),
            *(licence_row(f"LicenseRef-{name}") for name in PROVIDERS),
        ],
    }


def of_people() -> dict[str, list[Columns]]:
    """Who takes part."""
    hosts = ("api.acme.example", "127.0.0.1", "api.cobalt.example", "router.dorado.example", "")
    routes = ("api", "self_hosted", "api", "aggregator", "mock")
    return {
        "agents": [
            {"agent_id": "ada", "kind": "person", "name": "Ada Lovelace"},
            *({"agent_id": name, "kind": "provider", "name": name.title()} for name in PROVIDERS),
        ],
        "teachers": [
            {
                "teacher_no": number,
                "teacher_id": f"{name}/model",
                "provider": name,
                "model": f"{name}-large",
                "revision": None,
                "route": routes[number],
                "host": hosts[number],
                "region": "us" if name == "acme" else None,
                "weights_sha256": None,
                "unpaid": name == "dorado",
            }
            for number, name in enumerate(PROVIDERS)
        ],
        "agreements": [
            {
                "agreement_id": "acme-dpa",
                "host": "api.acme.example",
                "kind": "dpa",
                "classes": ["contact"],
                "regions": ["eu"],
                "retention_days": 30,
                "valid_from": day("2026-01-01"),
                "valid_until": day("2026-05-31"),
            }
        ],
        "sources": source_rows(),
    }


def of_work() -> dict[str, list[Columns]]:
    """Runs, datasets and students."""
    return {
        "runs": [
            {
                "run_no": number,
                "run_id": f"run-{number}",
                "task": f"task-{number // 2}",
                "spec_digest": hashed(number),
                "prompt_digest": hashed(number),
                "actor": "ada",
                "status": "done",
                "student_competes": "unknown",
                "commercial": True,
                "student_distribution": "hosted",
                "started_time": BEGAN + timedelta(days=50 * number),
                "ended_time": BEGAN + timedelta(days=50 * number + 49),
            }
            for number in range(4)
        ],
        "datasets": [
            {
                "dataset_no": number,
                "name": name,
                "version": "1",
                "status": "revoked" if name == "gamma" else "sealed",
                "manifest_sha256": hashed(number),
                "merkle_root": hashed(number),
                "effective_licence": "Apache-2.0 AND CC-BY-4.0",
                "created_time": moment("2026-07-25"),
                "revoked_time": moment("2026-07-01") if name == "gamma" else None,
            }
            for number, name in enumerate(("alpha", "beta", "gamma"))
        ],
        "students": [
            {
                "student_no": number,
                "student_id": name,
                "run_no": number,
                "base_model": "borealis-tiny" if name == "mixed" else None,
                "base_licence": "Apache-2.0" if name == "mixed" else None,
                "base_terms": ["borealis-weights"] if name == "mixed" else [],
                "weights_sha256": hashed(number),
                "student_competes": competes,
                "commercial": True,
                "student_distribution": "weights_released",
                "status": "trained",
                "trained_time": moment("2026-07-26"),
            }
            for number, (name, competes) in enumerate((("clean", "no"), ("mixed", "unknown"), ("old", "yes")))
        ],
        "student_datasets": [
            {"student_no": student, "dataset_no": dataset, "role": role, "first_used_time": moment("2026-07-26")}
            for student, dataset, role in ((0, 0, "train"), (1, 1, "train"), (1, 0, "selection"), (2, 2, "train"))
        ],
        "releases": [
            {
                "release_id": "release-1",
                "student_no": 1,
                "name": "Mixed One",
                "approver": "ada",
                "student_distribution": "weights_released",
                "policy_digest": hashed(1),
                "registry_digest": hashed(2),
                "waiver_ids": ["w-soon"],
                "released_time": moment("2026-07-28"),
                "withdrawn_time": None,
            },
            {
                "release_id": "release-0",
                "student_no": 2,
                "name": "Old One",
                "approver": "ada",
                "student_distribution": "hosted",
                "policy_digest": None,
                "registry_digest": None,
                "waiver_ids": [],
                "released_time": moment("2026-06-28"),
                "withdrawn_time": moment("2026-07-02"),
            },
        ],
    }


def of_ledger() -> dict[str, list[Columns]]:
    """What was erased, and the ledger."""
    return {
        "erasures": [
            {
                "erasure_no": 0,
                "erasure_id": "1",
                "selector": "source",
                "subject": "source-013",
                "erased_by": "ada",
                "reason": "asked to",
                "records": 7,
                "datasets": ["gamma-1"],
                "students": ["old"],
                "releases": ["release-0"],
                "counted": True,
                "erased_time": moment("2026-07-01"),
            }
        ],
        "erased_uses": [
            taken("record", None, 7, kind="response"),
            taken("record", GAMMA, 4, kind="response"),
            taken("record", GAMMA, 2, kind="label"),
            taken("use", GAMMA, 4, 1, teacher_no=COBALT, terms_set_no=COBALT_SET, role="response"),
            taken("use", GAMMA, 2, teacher_no=OWN, terms_set_no=OWN_SET, role="response", model_served="own-2"),
            taken("use", GAMMA, 6, teacher_no=DORADO, terms_set_no=DORADO_SET, role="judge"),
            taken("source", None, 7, 1, source_id="source-013"),
            taken("source", GAMMA, 6, 1, source_id="source-013"),
            taken("source", GAMMA, 1, source_id="source-001"),
        ],
        "checkpoints": [
            {"size": size, "root": hashed(size), "key_id": "k", "signed_time": moment("2026-07-28")} for size in (3, 8)
        ],
        "events": [
            {
                "seq": seq,
                "kind": "decided" if seq % 2 else "shard_committed",
                "commitment": hashed(seq),
                "erased": seq == 2,
                "occurred_time": moment("2026-07-01"),
            }
            for seq in range(1, 11)
        ],
    }


GAMMA = 2


def taken(about: str, dataset: int | None, records: int, by_parents: int = 0, **more: Any) -> Columns:
    """What the erasure counted before it took it."""
    names = ("kind", "teacher_no", "terms_set_no", "role", "model_served", "source_id")
    return {
        "erasure_no": 0,
        "about": about,
        "dataset_no": dataset,
        "split": None if dataset is None else "train",
        **{name: more.get(name) for name in names},
        "records": records,
        "by_parents": by_parents,
        "input_tokens": records * 10,
        "output_tokens": records * 3,
    }


def decision_tables() -> dict[str, list[Columns]]:
    """Stopped and waived decisions, and the waivers."""
    soon, late = ("w-soon",), ("w-late",)
    rows = (
        (0, "plan", "cobalt/model", "response", "deny", 5_000_000, ("R04", "cobalt-api"), ()),
        (1, "plan", "cobalt/model", "response", "deny", 7_000_000, ("R04", "cobalt-api"), ()),
        (2, "plan", "dorado/model", "judge", "needs_waiver", 250_000, ("R02", "dorado-host"), ()),
        (2, "plan", "unknown/model", "response", "deny", None, ("R01", None), ()),
        (2, "plan", "acme/model", "filter", "deny", 90_000, ("R11", None), ()),
        (3, "plan", "acme/model", "filter", "allow", None, ("R09", "acme-api-2026"), ()),
        (3, "plan", "acme/model", "response", "allow", None, ("R06", "acme-api-2026"), soon),
        (0, "plan", "borealis/model", "response", "allow", None, ("R09", "borealis-weights"), late),
        (None, "release", "mixed", "response", "allow", None, ("R09", "acme-api-2026"), soon),
    )
    decisions, reasons, lifted = [], [], []
    for number, (run, stage, subject, role, outcome, estimate, (rule, terms_id), lifting) in enumerate(rows):
        decisions.append(
            {
                "decision_no": number,
                "run_no": run,
                "stage": stage,
                "subject_kind": "student" if stage == "release" else "teacher",
                "subject": subject,
                "role": role,
                "outcome": outcome,
                "estimated_microusd": estimate,
                "policy_digest": hashed(1),
                "registry_digest": hashed(2),
                "decided_time": BEGAN + timedelta(days=number),
            }
        )
        reason = {"decision_no": number, "rule": rule, "terms_id": terms_id, "outcome": outcome, "text": "said so"}
        reasons.append(reason)
        lifted += [{"decision_no": number, "waiver_id": waiver} for waiver in lifting]
    waivers = [
        {
            "waiver_id": name,
            "terms_ids": list(terms),
            "rules": [],
            "task": "",
            "teacher": "",
            "granted_by": "ada",
            "reason": "asked counsel",
            "evidence_sha256": hashed(3),
            "granted": day("2026-01-01"),
            "expires": day(expires),
            "ended_time": None,
        }
        for name, terms, expires in (
            ("w-soon", ("acme-api-2026",), "2026-09-01"),
            ("w-late", ("borealis-weights",), "2027-09-01"),
            ("w-idle", ("cobalt-api",), "2026-08-15"),
        )
    ]
    return {"decisions": decisions, "decision_reasons": reasons, "decision_waivers": lifted, "waivers": waivers}


def tables(records: int, seed: int = 1) -> dict[str, pa.Table]:
    """All tables of the lineage for so many records."""
    made = {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in small_tables().items()}
    return made | large_tables(records, np.random.default_rng(seed))


def write(records: int, folder: Path, seed: int = 1) -> dict[str, Path]:
    """The lineage as Parquet files, by table."""
    paths = {}
    for name, table in tables(records, seed).items():
        paths[name] = folder / f"{name}.parquet"
        pq.write_table(table, paths[name], **writer_options(name))
    return paths


def write_empty(folder: Path) -> dict[str, Path]:
    """Files without rows."""
    paths = {name: folder / f"{name}.parquet" for name in SCHEMAS}
    for name, path in paths.items():
        pq.write_table(SCHEMAS[name].empty_table(), path, **writer_options(name))
    return paths


def chance(draw: np.random.Generator, count: int, share: float) -> np.ndarray:
    return draw.random(count) < share


def large_tables(count: int, draw: np.random.Generator) -> dict[str, pa.Table]:
    """What grows with the records: who wrote, judged and filtered each, from what, and where it went."""
    number = np.arange(count)
    in_b = number >= count // 2
    writer = np.where(chance(draw, count, 0.3), ACME, BOREALIS)
    writer[~in_b & chance(draw, count, 0.04)] = OWN
    writer[in_b & chance(draw, count, 0.001)] = COBALT
    parents = parent_pairs(number, in_b, writer, draw)
    sources = np.concatenate([draw.integers(0, SOURCES, count), draw.integers(0, SOURCES, count // 200)])
    sourced = np.concatenate([number, draw.choice(count, count // 200, replace=False)])
    source_role = np.concatenate([np.full(count, "seed"), np.full(count // 200, "context")])
    inside = number[number % 20 != 0]

    defects = inside[inside >= count // 2][100 : 100 + NO_REQUEST + NO_SOURCE + NO_DOCUMENTS]
    no_request, no_source, no_documents = np.split(defects, [NO_REQUEST, NO_REQUEST + NO_SOURCE])
    asked = requests(number, in_b, writer, no_documents, draw)
    links = {name: asked.pop(f"link_{name}") for name in ("record_no", "request_no", "role")}
    kept = ~np.isin(links["record_no"], no_request)
    seeded = ~np.isin(sourced, no_source)
    return {
        "requests": table("requests", asked),
        "records": table("records", record_columns(number, in_b, draw)),
        "record_requests": table("record_requests", {name: values[kept] for name, values in links.items()}),
        "record_sources": table(
            "record_sources", in_order(record_no=sourced[seeded], source_no=sources[seeded], role=source_role[seeded])
        ),
        "record_parents": table(
            "record_parents",
            in_order(record_no=parents[0], parent_no=parents[1], how=np.full(len(parents[0]), "seed")),
        ),
        "dataset_records": table(
            "dataset_records",
            {
                "dataset_no": (inside >= count // 2).astype("int32"),
                "record_no": inside,
                "split": np.where(inside % 10, "train", "test"),
            },
        ),
    }


def parent_pairs(
    number: np.ndarray, in_b: np.ndarray, writer: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A fifth of the records are made from an earlier one nearby; what follows a record of cobalt's always from it."""
    made = chance(draw, len(number), 0.2) & (number % (len(number) // 2) >= 40)
    after = np.roll(writer == COBALT, 1) & in_b
    parent = np.where(after, number - 1, number - draw.integers(1, 40, len(number)))
    made |= after & (number > len(number) // 2)
    return number[made], parent[made]


def requests(
    number: np.ndarray, in_b: np.ndarray, writer: np.ndarray, no_documents: np.ndarray, draw: np.random.Generator
) -> Columns:
    """One answer for each record, then the judgements of cobalt on part of B and dorado's filtering of part of all."""
    count = len(number)
    judged = number[in_b & (writer != COBALT) & chance(draw, count, 0.02)]
    filtered = number[chance(draw, count, 0.03)]
    about = np.concatenate([number, judged, filtered])
    teacher = np.concatenate([writer, np.full(len(judged), COBALT), np.full(len(filtered), DORADO)])
    role = np.concatenate([np.full(count, "response"), np.full(len(judged), "judge"), np.full(len(filtered), "filter")])
    total = len(about)
    micros = (about * (DAYS * 86_400 * 1_000_000 // count)).astype("timedelta64[us]")
    sent = np.datetime64(BEGAN, "us") + micros
    terms_set = SET_OF[teacher]
    old = (teacher == ACME) & (sent < np.datetime64(CHANGED))
    terms_set[old] = ACME_2025
    late = np.flatnonzero((teacher == ACME) & ~old)[:LATE]
    terms_set[late] = ACME_2025
    replay = (teacher == ACME) & ~old & chance(draw, total, 0.3)
    terms_set[no_documents] = NO_TERMS
    replay[np.concatenate([late, no_documents])] = False
    from_old = replay & (draw.random(total) < 0.5)
    origin = np.where(from_old, ACME_2025, ACME_2026)
    tokens = draw.integers(20, 400, total)
    return {
        "request_no": np.arange(total),
        "request_key": ids(total, draw),
        "run_no": about * 4 // count,
        "teacher_no": teacher,
        "terms_set_no": terms_set,
        "from_cache": replay,
        "origin_request_no": masked(about, np.zeros(total, bool)),
        "origin_terms_set_no": masked(origin, replay),
        "origin_sent_time": masked(np.where(from_old, np.datetime64("2026-02-01", "us"), sent), replay),
        "state": np.full(total, "answered"),
        "model_served": served(teacher, draw),
        "provider_request_id": provider_ids(teacher, draw),
        "region": masked(np.where(draw.random(total) < 0.5, "eu", "us"), teacher == ACME),
        "personal_data": masked(
            np.where(draw.random(total) < 0.3, "contact,health", "contact"), chance(draw, total, 0.01)
        ),
        "input_tokens": draw.integers(50, 900, total),
        "output_tokens": tokens,
        "cost_microusd": np.where(replay, 0, tokens * 3),
        "sent_time": sent,
        "link_record_no": about,
        "link_request_no": np.arange(total),
        "link_role": role,
    }


def served(teacher: np.ndarray, draw: np.random.Generator) -> Any:
    """acme names dated versions and now and then another model, borealis itself, the others nothing."""
    lot = draw.random(len(teacher))
    names = np.where(lot < 0.002, "acme-small", np.where(lot < 0.5, "acme-large-2026-02-01", "acme-large"))
    names = np.where(teacher == BOREALIS, "borealis-large", names)
    return masked(names, teacher <= BOREALIS)


def provider_ids(teacher: np.ndarray, draw: np.random.Generator) -> list[str | None]:
    """Hosted teachers give each answer an id."""
    noise = draw.bytes(12 * len(teacher)).hex()
    hosted = np.isin(teacher, (ACME, COBALT, DORADO)).tolist()
    return [f"req_{noise[24 * n : 24 * n + 24]}" if given else None for n, given in enumerate(hosted)]


def record_columns(number: np.ndarray, in_b: np.ndarray, draw: np.random.Generator) -> Columns:
    count = len(number)
    micros = (number * (DAYS * 86_400 * 1_000_000 // count) + 2_000_000).astype("timedelta64[us]")
    return {
        "record_no": number,
        "record_id": ids(count, draw),
        "run_no": number * 4 // count,
        "kind": np.where(number % 3, "response", "label"),
        "licence": np.where(in_b, "Apache-2.0", "CC-BY-4.0"),
        "shard": np.char.add("shards/task/", (number // 10_000).astype(str)),
        "personal_data": masked(np.full(count, "email"), number % 100 == 1),
        "input_tokens": draw.integers(50, 900, count),
        "output_tokens": draw.integers(20, 400, count),
        "created_time": np.datetime64(BEGAN, "us") + micros,
    }


def ids(count: int, draw: np.random.Generator) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, pa.py_buffer(draw.bytes(32 * count))])


def masked(values: np.ndarray, there: np.ndarray) -> Any:
    """The values, None where they are not there."""
    return pa.array(values, mask=~there)


def in_order(*, record_no: np.ndarray, **others: np.ndarray) -> Columns:
    order = np.argsort(record_no, kind="stable")
    return {"record_no": record_no[order], **{name: values[order] for name, values in others.items()}}


def table(name: str, columns: Columns) -> pa.Table:
    schema = SCHEMAS[name]
    return pa.table([arrow(columns[field.name], field.type) for field in schema], schema=schema)


def arrow(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        return pa.array(values.tolist(), kind)
    made = values if isinstance(values, pa.Array) else pa.array(values)
    return made if made.type == kind else made.cast(kind)
