"""Teachers, uses and small registries for the tests of terms and policy."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from corpusgen.provenance.policy import IntendedUse
from corpusgen.provenance.terms import Registry, Route, TeacherRoute, TermsDocument, load_registry
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
    """A commercial student that may compete, of somebody who accepts every duty that can be carried out."""
    return IntendedUse(**{"student_distribution": "weights_released", "accepted_duties": EVERY_DUTY, **fields})


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
    return Registry(documents=documents, data_licences=shipped_registry().data_licences)


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
