"""Teachers, uses and small registries for the tests of terms and policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from corpusgen.provenance.policy import Agreement, IntendedUse, SourceUse, Waiver
from corpusgen.provenance.terms import Registry, Route, TeacherRoute, TermsDocument, TermsDuty, load_registry
from corpusgen.shipped import shipped

TODAY = date(2026, 11, 22)

EVERY_DUTY = (
    "attribution",
    "naming",
    "notice_file",
    "license_copy",
    "use_policy_flow_down",
    "share_alike",
    "ai_label",
    "mau_cap",
    "revenue_cap",
    "no_trademark",
    "residency",
)


@cache
def shipped_registry() -> Registry:
    return load_registry(shipped("data/terms.yaml"))


def teacher(model: str, route: Route = "self_hosted", **fields: Any) -> TeacherRoute:
    return TeacherRoute(**{"name": model, "provider": "anybody", "model": model, "route": route, **fields})


def commercial_use(**fields: Any) -> IntendedUse:
    """A commercial student that may compete, of a small firm in the US that accepts every duty."""
    small: dict[str, Any] = {
        "monthly_active_users": 10_000,
        "annual_revenue_usd": 1_000_000,
        "domiciled_in": ("us",),
    }
    plain = {"student_distribution": "weights_released", "accepted_duties": EVERY_DUTY, **small}
    return IntendedUse(**{**plain, **fields})


def waiver(*terms_ids: str, **fields: Any) -> Waiver:
    """A waiver of these terms as they ship, in force on TODAY."""
    plain: dict[str, Any] = {
        "waiver_id": "w1",
        "terms_ids": terms_ids,
        "granted_by": "counsel",
        "reason": "we asked them",
        "evidence_sha256": "e" * 64,
        "granted": TODAY,
        "expires": TODAY,
        "versions": versions_of(shipped_registry(), terms_ids),
    }
    return Waiver(**{**plain, **fields})


def as_here(known: Registry, waivers: Iterable[Waiver]) -> list[Waiver]:
    """The waivers as if they had been granted for what these terms say."""
    return [replace(one, versions=versions_of(known, one.terms_ids)) for one in waivers]


def versions_of(known: Registry, terms_ids: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, version) for name in terms_ids if (version := known.version_of(name)))


def agreement(host: str = "api.vendor.example", **fields: Any) -> Agreement:
    """An agreement about personal data of every class and region, without an end."""
    return Agreement(**{"id": "dpa-1", "host": host, **fields})


def source(licence: str = "CC0-1.0", **fields: Any) -> SourceUse:
    """A source called s that may be used for anything, unless told otherwise."""
    return SourceUse(**{"source_id": "s", "licence": licence, **fields})


def duty(kind: str, **fields: Any) -> TermsDuty:
    """A duty of that kind on the student."""
    return TermsDuty(**{"kind": kind, "applies_to": "student", "text": f"do {kind}", **fields})


def document(**fields: Any) -> TermsDocument:
    """Terms that allow everything for models called m-…, unless told otherwise."""
    plain: dict[str, Any] = {
        "id": "plain-1",
        "provider": "anybody",
        "title": "Plain licence",
        "version": "1",
        "kind": "model_licence",
        "routes": ("self_hosted",),
        "models": ("m-*",),
        "outputs_train": "allowed",
        "outputs_train_competing": "allowed",
        "commercial_use": "allowed",
        "spdx": "Apache-2.0",
        "source": "a test",
        "confidence": "high",
        "reviewed": date(2026, 11, 1),
    }
    return TermsDocument(**{**plain, **fields})


def registry(*documents: TermsDocument) -> Registry:
    known = shipped_registry()
    return Registry(documents=documents, data_licences=known.data_licences, regions=known.regions)


def terms_file(folder: Path, text: str) -> Path:
    path = folder / "terms.yaml"
    path.write_text(text, encoding="utf-8")
    return path


MINIMAL = """\
documents:
  - id: house-1
    provider: house
    title: Our own licence
    version: "1"
    kind: model_licence
    routes: [self_hosted]
    models: ["house-*"]
    outputs_train: allowed
    outputs_train_competing: allowed
    commercial_use: allowed
    spdx: LicenseRef-House
    source: our counsel
    confidence: high
    reviewed: 2026-11-20
"""
