"""Terms of teachers and licences of sources: a registry of data, and which of its documents bind a teacher.

Terms attach to the route (provider, host, model, day), not to the model alone: the same weights are under one licence
on your own server and under another contract through an API. Every document that fits counts, never the first one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.errors import LocatedError, Problem
from corpusgen.records import Json, digest
from corpusgen.spec import read_yaml

SCHEMA = "corpusgen.terms/1"
MAX_QUOTE_WORDS = 20
LICENCE_REF = re.compile(r"^LicenseRef-[A-Za-z0-9.-]+$")

Route: TypeAlias = Literal["api", "consumer", "aggregator", "cloud", "self_hosted", "mock"]
Grant: TypeAlias = Literal["allowed", "conditional", "unclear", "prohibited"]
DocumentKind: TypeAlias = Literal["api_terms", "consumer_terms", "usage_policy", "model_licence", "host_terms", "own"]
DutyKind: TypeAlias = Literal[
    "attribution",
    "naming",
    "notice_file",
    "license_copy",
    "use_policy_flow_down",
    "share_alike",
    "ai_label",
    "mau_cap",
    "revenue_cap",
    "non_commercial",
    "no_distribution",
    "no_trademark",
    "residency",
]

STRICTNESS: dict[str, int] = {"allowed": 0, "conditional": 1, "unclear": 2, "prohibited": 3}
"""Grants from loose to strict."""

_Lines: TypeAlias = dict[tuple[str | int, ...], int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TermsDuty(_Part):
    """Something to carry out if outputs under this document are used."""

    kind: DutyKind
    applies_to: Literal["dataset", "student", "service"]
    text: str = Field(min_length=1)


class TermsDocument(_Part):
    """One version of one contract, policy or licence that a teacher may be under."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    provider: str = Field(min_length=1)
    title: str = Field(min_length=1)
    version: str = Field(min_length=1)
    kind: DocumentKind
    effective: date | None = None
    superseded: date | None = None
    routes: tuple[Route, ...] = Field(min_length=1)
    providers: tuple[str, ...] = Field((), description="Only teachers of these providers; empty: any")
    hosts: tuple[str, ...] = Field((), description="Only these hosts; empty: any")
    models: tuple[str, ...] = Field(min_length=1)
    models_excluded: tuple[str, ...] = ()
    outputs_train: Grant
    outputs_train_competing: Grant
    written_authorisation: bool = Field(False, description="A prohibition yields to the provider's written consent")
    commercial_use: Grant
    conditions: tuple[str, ...] = ()
    duties: tuple[TermsDuty, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)
    spdx: str
    quote: str = ""
    quote_location: str = ""
    source: str = Field(min_length=1)
    text_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    confidence: Literal["high", "medium", "low"]
    reviewed: date

    def in_force(self, on: date) -> bool:
        """True if this version binds requests of that day."""
        begun = self.effective is None or self.effective <= on
        return begun and (self.superseded is None or on < self.superseded)


class DataLicence(_Part):
    """What the licence of a source lets one do with text derived from it."""

    spdx: str
    aliases: tuple[str, ...] = ()
    train: Grant
    redistribute_derived: Grant
    attribution: bool = False
    share_alike: bool = False
    non_commercial: bool = False
    no_derivatives: bool = False
    notice: str | None = None
    source: str | None = None


class AddRule(_Part):
    """Documents that join a set which their own globs would not have put them in."""

    name: str
    why: str
    models: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    add_kind: DocumentKind | None = None


class KnownHost(_Part):
    """A host whose route is no secret."""

    host: str
    routes: tuple[Route, ...] = Field(min_length=1)


class KnownTeacher(_Part):
    """A teacher that a refusal may suggest."""

    name: str
    provider: str
    model: str
    route: Route
    host: str = ""


class Review(_Part):
    """Somebody read a document again and found it unchanged."""

    terms: str
    reviewed: date
    by: str = Field(min_length=1)


class _File(_Part):
    schema_: Literal["corpusgen.terms/1"] | None = Field(None, alias="schema")
    notice: str = ""
    reviewed_by: str = ""
    stale_after_days: int | None = Field(None, ge=1)
    needs_host_terms: tuple[Route, ...] = ()
    known_hosts: tuple[KnownHost, ...] = ()
    always_add: tuple[AddRule, ...] = ()
    known_teachers: tuple[KnownTeacher, ...] = ()
    documents: tuple[TermsDocument, ...] = ()
    data_licences: tuple[DataLicence, ...] = ()
    reviews: tuple[Review, ...] = ()
    known_gaps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TeacherRoute:
    """A teacher as the terms see it: what answers, through whom, and on whose machine."""

    name: str
    provider: str
    model: str
    route: Route
    host: str = ""
    weights_sha256: str | None = None
    pinned_terms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Why a set of terms cannot be relied on."""

    about: Literal["model", "host", "route", "pinned", "original"]
    text: str


@dataclass(frozen=True, kw_only=True)
class TermsMatch:
    """Every document that binds a teacher, and what is missing before that set can be relied on."""

    documents: tuple[TermsDocument, ...]
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Registry:
    """All terms and licences known here; equal files make an equal digest."""

    documents: tuple[TermsDocument, ...]
    data_licences: tuple[DataLicence, ...]
    always_add: tuple[AddRule, ...] = ()
    known_hosts: tuple[KnownHost, ...] = ()
    known_teachers: tuple[KnownTeacher, ...] = ()
    needs_host_terms: tuple[Route, ...] = ()
    stale_after_days: int = 90
    notice: str = ""
    known_gaps: tuple[str, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, TermsDocument]:
        """Documents by their id."""
        return {document.id: document for document in self.documents}

    @cached_property
    def licence_names(self) -> dict[str, DataLicence]:
        """Source licences by their SPDX id and by every alias."""
        return {name: licence for licence in self.data_licences for name in (licence.spdx, *licence.aliases)}

    @cached_property
    def digest(self) -> str:
        """sha256 of everything a decision can depend on, in whichever order the files said it."""
        return digest(
            {
                "documents": _sorted_dump(self.documents),
                "data_licences": _sorted_dump(self.data_licences),
                "always_add": _sorted_dump(self.always_add),
                "known_hosts": _sorted_dump(self.known_hosts),
                "needs_host_terms": sorted(self.needs_host_terms),
                "stale_after_days": self.stale_after_days,
            }
        )

    def matching(self, route: TeacherRoute, on: date) -> TermsMatch:
        """Every document that binds this teacher on that day, found by its route first and then by its model."""
        candidates = [document for document in self.documents if _applies(document, route, on)]
        found = {document.id: document for document in candidates if _fit(document, route.model)}
        for rule in self.always_add:
            found |= {document.id: document for document in self._added(rule, route, on, tuple(found.values()))}
        found |= {name: self.by_id[name] for name in route.pinned_terms if name in self.by_id}
        documents = tuple(found[name] for name in sorted(found))
        return TermsMatch(documents=documents, gaps=tuple(self._gaps(route, on, documents)))

    def originally(self, terms_ids: Collection[str]) -> TermsMatch:
        """The documents an earlier request was made under, whatever is in force today."""
        unknown = sorted(name for name in terms_ids if name not in self.by_id)
        texts = [f"the original request names terms {name!r}, which no registry file has" for name in unknown]
        if not terms_ids:
            texts.append("the original request names no terms")
        known = sorted({name for name in terms_ids if name in self.by_id})
        return TermsMatch(
            documents=tuple(self.by_id[name] for name in known),
            gaps=tuple(Gap(about="original", text=text) for text in texts),
        )

    def _added(
        self, rule: AddRule, route: TeacherRoute, on: date, found: Sequence[TermsDocument]
    ) -> Iterator[TermsDocument]:
        if rule.models and not _any_fits(rule.models, _names(route.model)):
            return
        providers = {document.provider for document in found} | {route.provider}
        for document in self.documents:
            by_kind = (
                document.kind == rule.add_kind and document.provider in providers and route.route in document.routes
            )
            if document.in_force(on) and (by_kind or document.id in rule.add):
                yield document

    def _gaps(self, route: TeacherRoute, on: date, documents: Sequence[TermsDocument]) -> Iterator[Gap]:
        where = f"route {route.route}" + (f", host {route.host}" if route.host else "")
        applying = [document for document in documents if _applies(document, route, on)]
        of_model = [document for document in applying if document.kind != "host_terms"]
        if not any(_fit(document, route.model) == "model" for document in of_model):
            yield Gap(about="model", text=f"no terms document covers model {route.model!r} on {where}")
        if route.route in self.needs_host_terms and not any(document.kind == "host_terms" for document in applying):
            text = f"no terms document covers the host {route.host!r} on route {route.route}"
            yield Gap(about="host", text=text)
        yield from self._contradictions(route)
        yield from _pin_gaps(route, documents, self.by_id)

    def _contradictions(self, route: TeacherRoute) -> Iterator[Gap]:
        for known in self.known_hosts:
            if fnmatchcase(_bare_host(route.host), known.host) and route.route not in known.routes:
                text = f"host {route.host} is reached by route {' or '.join(known.routes)}, not by {route.route}"
                yield Gap(about="route", text=text)


def load_registry(shipped: Path, *extra: Path) -> Registry:
    """The shipped registry with the organisation's own files. Raises LocatedError with every mistake found."""
    files = [(path, *_read(path)) for path in (shipped, *extra)]
    problems = [problem for path, file, lines in files for problem in _lint(path, file, lines)]
    problems += _lint_together([(path, file, lines) for path, file, lines in files])
    if problems:
        raise LocatedError(*problems)
    return _merge([file for _, file, _ in files])


def terms_set_id(documents: Iterable[TermsDocument]) -> str:
    """sha256 of the sorted ids of a set of documents: what a record stores instead of the list."""
    return hashlib.sha256("\n".join(sorted(document.id for document in documents)).encode()).hexdigest()


def _merge(files: Sequence[_File]) -> Registry:
    stale = [file.stale_after_days for file in files if file.stale_after_days is not None]
    registry = Registry(
        documents=tuple(document for file in files for document in file.documents),
        data_licences=tuple(licence for file in files for licence in file.data_licences),
        always_add=tuple(rule for file in files for rule in file.always_add),
        known_hosts=tuple(host for file in files for host in file.known_hosts),
        known_teachers=tuple(teacher for file in files for teacher in file.known_teachers),
        needs_host_terms=tuple(sorted({route for file in files for route in file.needs_host_terms})),
        stale_after_days=min(stale, default=90),
        notice=next((file.notice for file in files if file.notice), ""),
        known_gaps=tuple(gap for file in files for gap in file.known_gaps),
    )
    return _with_reviews(registry, [review for file in files for review in file.reviews])


def _with_reviews(registry: Registry, reviews: Sequence[Review]) -> Registry:
    latest: dict[str, date] = {}
    for review in reviews:
        latest[review.terms] = max(review.reviewed, latest.get(review.terms, review.reviewed))
    documents = (
        document.model_copy(update={"reviewed": max(document.reviewed, latest.get(document.id, document.reviewed))})
        for document in registry.documents
    )
    return replace(registry, documents=tuple(documents))


def _sorted_dump(parts: Sequence[BaseModel]) -> list[Json]:
    return sorted((part.model_dump(mode="json") for part in parts), key=digest)


# --- Which documents fit ---------------------------------------------------------------------------------------------


def _applies(document: TermsDocument, route: TeacherRoute, on: date) -> bool:
    return (
        route.route in document.routes
        and document.in_force(on)
        and (not document.providers or route.provider in document.providers)
        and (not document.hosts or any(fnmatchcase(_bare_host(route.host), host) for host in document.hosts))
    )


def _bare_host(host: str) -> str:
    """The name alone, however a host was written: no scheme, user, port, path or closing dot."""
    return re.sub(r"^(\w+://)?([^/@]*@)?|[:/].*$", "", host.lower()).rstrip(".")


def _fit(document: TermsDocument, model: str) -> Literal["model", "base"] | None:
    """``model`` if the id is one of the document's, ``base`` if such an id only stands inside it."""
    names = _names(model)
    if _any_fits(document.models_excluded, names):
        return None
    if _any_fits(document.models, names):
        return "model"
    inner = [name[place.end() :] for name in names for place in re.finditer(r"[-.]", name)]
    return "base" if _any_fits(document.models, inner) else None


def _names(model: str) -> list[str]:
    """The whole id in its normal form, and whatever follows a slash in it."""
    whole = re.sub(r"[_:@]", "-", model.lower())
    return [whole, *(whole[place.end() :] for place in re.finditer("/", whole))]


def _any_fits(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(_fits(pattern, name) for pattern in patterns for name in names)


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or (pattern.endswith("-*") and fnmatchcase(name, pattern[:-2]))


def _pin_gaps(route: TeacherRoute, documents: Sequence[TermsDocument], known: Collection[str]) -> Iterator[Gap]:
    if not route.pinned_terms:
        return
    for name in route.pinned_terms:
        if name not in known:
            yield Gap(about="pinned", text=f"terms names {name!r}, which no registry file has")
    for document in documents:
        if document.id not in route.pinned_terms:
            yield Gap(about="pinned", text=f"{document.id} binds this teacher too; add it to the teacher's terms")


# --- Reading and checking files --------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[_File, _Lines]:
    try:
        raw = path.read_bytes()
    except OSError:
        raw = b""  # what reads it says why
    return _read_once(path, raw)


@lru_cache(maxsize=8)
def _read_once(path: Path, raw: bytes) -> tuple[_File, _Lines]:
    """A file as it was read and checked when it held these bytes; every run of a process looks at the same few."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise LocatedError(Problem(file=path, line=1, field="", message="a terms file is a mapping with `documents`"))
    try:
        return _File.model_validate_json(orjson.dumps(value)), lines
    except ValidationError as error:
        raise LocatedError(
            *(_problem(path, lines, found["loc"], _message(found)) for found in error.errors())
        ) from error


def _message(found: Json) -> str:
    if found["type"] == "extra_forbidden":
        return "no such field"
    if found["type"] == "missing":
        return "this field is required"
    shown = found["input"]
    return found["msg"] if isinstance(shown, dict | list) else f"{found['msg']}, found {shown!r}"


def _problem(path: Path, lines: _Lines, field: tuple[str | int, ...], message: str) -> Problem:
    line = next((lines[field[:end]] for end in range(len(field), -1, -1) if field[:end] in lines), None)
    return Problem(file=path, line=line, field=".".join(map(str, field)), message=message)


def _lint(path: Path, file: _File, lines: _Lines) -> Iterator[Problem]:
    for index, document in enumerate(file.documents):
        for field, message in _mistakes(document):
            yield _problem(path, lines, ("documents", index, field), f"{document.id}: {message}")


def _mistakes(document: TermsDocument) -> Iterator[tuple[str, str]]:
    words = len(document.quote.split())
    if words > MAX_QUOTE_WORDS:
        yield "quote", f"a quotation has at most {MAX_QUOTE_WORDS} words, found {words}"
    if document.quote and not document.quote_location:
        yield "quote", "say where the quotation stands in quote_location"
    if STRICTNESS[document.outputs_train_competing] < STRICTNESS[document.outputs_train]:
        yield "outputs_train_competing", "must be at least as strict as outputs_train"
    if document.effective and document.superseded and document.superseded <= document.effective:
        yield "superseded", "must come after effective"
    if document.kind == "host_terms" and not document.hosts:
        yield "kind", "host_terms need hosts"
    for field in ("models", "models_excluded", "hosts"):
        for pattern in getattr(document, field):
            if pattern != re.sub(r"[_:@]", "-", pattern.lower()):
                yield field, f"{pattern!r} can never fit: write it in lower case, with - for _ : @"


def _lint_together(files: Sequence[tuple[Path, _File, _Lines]]) -> list[Problem]:
    known = {document.id for _, file, _ in files for document in file.documents}
    listed = {name for _, file, _ in files for licence in file.data_licences for name in _licence_names(licence)}
    problems = [*_twice(files, "documents", "id"), *_twice(files, "data_licences", "spdx")]
    for path, file, lines in files:
        for place, name in _mentions(file):
            if name not in known:
                problems.append(_problem(path, lines, place, f"no document has the id {name!r}"))
        for index, document in enumerate(file.documents):
            if document.spdx not in listed and not LICENCE_REF.match(document.spdx):
                message = f"{document.id}: {document.spdx!r} is not among data_licences; add it or write LicenseRef-…"
                problems.append(_problem(path, lines, ("documents", index, "spdx"), message))
    return problems


def _licence_names(licence: DataLicence) -> tuple[str, ...]:
    return (licence.spdx, *licence.aliases)


def _mentions(file: _File) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for index, rule in enumerate(file.always_add):
        yield from ((("always_add", index, "add"), name) for name in rule.add)
    yield from ((("reviews", index, "terms"), review.terms) for index, review in enumerate(file.reviews))


def _twice(files: Sequence[tuple[Path, _File, _Lines]], section: str, field: str) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for path, file, lines in files:
        for index, part in enumerate(getattr(file, section)):
            name = getattr(part, field)
            if name in seen:
                message = f"{name!r} stands twice, first in {seen[name]}; give this one an id of its own"
                yield _problem(path, lines, (section, index, field), message)
            seen.setdefault(name, path)
