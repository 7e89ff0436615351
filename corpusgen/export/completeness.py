"""Our own gate: what a dataset must say of itself before anything about it is published.

Validators of the formats we write are not enough: one takes a dataset without name and licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from corpusgen.export.card import CardFacts, CardSource, CardTeacher
from corpusgen.export.facts import DatasetFacts

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LICENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:-]*")
_WORDS: Final = frozenset({"AND", "OR", "WITH"})
_NOBODY_SAID: Final = frozenset({"", "noassertion", "none", "unknown", "other", "null"})

ON_SPDX_LIST: Final = frozenset(
    {
        "Apache-2.0",
        "BSD-3-Clause",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "MIT",
        "ODC-By-1.0",
        "ODbL-1.0",
        "PDDL-1.0",
    }
)
"""Licences of the SPDX list that the registry knows; what is not here may stand there all the same."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """One thing a dataset does not say, where it should stand, and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def complete(facts: DatasetFacts) -> list[Missing]:
    """What is missing before anything about the dataset may be published; empty means nothing."""
    return [*_of_card(facts.card), *_of_files(facts), *_of_digests(facts)]


def complete_card(card: CardFacts) -> list[Missing]:
    """The same for what is known before a dataset has files: name, licence, teachers and sources."""
    return list(_of_card(card))


def licences_in(expression: str) -> list[str]:
    """The single licences an expression names, each once, in its order."""
    found = re.split(r"[\s()]+", expression)
    return list(dict.fromkeys(word for word in found if word and word not in _WORDS))


def _of_card(card: CardFacts) -> Iterator[Missing]:
    for name in ("name", "version"):
        if not getattr(card, name).strip():
            yield Missing(field=name, message=f"the dataset has no {name}")
    yield from _of_licence("licence_expression", card.licence_expression)
    if card.rows < 1:
        yield Missing(field="rows", message="the dataset is empty")
    if not card.teachers and card.imported < card.rows:
        yield Missing(field="teachers", message="nobody is named who wrote the rows")
    for teacher in card.teachers:
        yield from _of_teacher(teacher)
    if not card.sources:
        yield Missing(field="sources", message="no source is named")
    for source in card.sources:
        yield from _of_source(source)
    for name in ("merkle_root", "spec_digest", "prompt_digest"):
        if not _SHA256.fullmatch(getattr(card, name) or ""):
            yield Missing(field=name, message="is no sha256; seal the dataset again")


def _of_licence(field: str, expression: str) -> Iterator[Missing]:
    names = licences_in(expression)
    if not names:
        yield Missing(field=field, message="there is no licence")
    for name in names:
        if name.casefold() in _NOBODY_SAID:
            message = f"{name!r} says that nobody knows the licence; find it out and write its SPDX identifier"
            yield Missing(field=field, message=message)
        elif not _LICENCE.fullmatch(name):
            message = f"{name!r} is no SPDX identifier and no LicenseRef-…; write one, such as CC-BY-4.0"
            yield Missing(field=field, message=message)


def _of_teacher(teacher: CardTeacher) -> Iterator[Missing]:
    field = f"teachers.{teacher.name}"
    if not teacher.model.strip():
        yield Missing(field=field, message="the model is not named")
    if not teacher.terms and teacher.route != "imported":  # what people wrote is under the licence of its source alone
        message = "none of its terms are in the registry; name them under terms_files"
        yield Missing(field=field, message=message)
    for terms in teacher.terms:
        if not terms.version.strip():
            message = "the version of the terms is not told; write version: in their terms file"
            yield Missing(field=f"{field}.{terms.terms_id}", message=message)
        if not terms.spdx.strip():
            message = "the terms have no licence name; write spdx: in their terms file"
            yield Missing(field=f"{field}.{terms.terms_id}", message=message)


def _of_source(source: CardSource) -> Iterator[Missing]:
    if not source.title.strip():
        yield Missing(field=f"sources.{source.source_id}", message="the source has no title; write title: its name")
    yield from _of_licence(f"sources.{source.source_id}", source.licence)


def _of_files(facts: DatasetFacts) -> Iterator[Missing]:
    if not facts.files:
        yield Missing(field="files", message="the dataset has no file")
    for file in facts.files:
        if not _SHA256.fullmatch(file.sha256):
            yield Missing(field=f"files.{file.path}", message="has no sha256")
    rows = sum(file.rows for file in facts.files)
    if rows != facts.card.rows:
        yield Missing(field="files", message=f"hold {rows} rows, and the dataset is said to have {facts.card.rows}")
    if not facts.columns:
        yield Missing(field="columns", message="nothing is known of the columns")


def _of_digests(facts: DatasetFacts) -> Iterator[Missing]:
    for name in ("manifest_sha256", "registry_digest", "policy_digest"):
        if not _SHA256.fullmatch(getattr(facts, name)):
            yield Missing(field=name, message="is no sha256; seal the dataset again")
    if facts.asked_from is None or facts.asked_until is None:
        yield Missing(field="asked_from", message="nobody knows when the teachers were asked")
