"""Terms of teachers and licences of sources: a registry of data, and which of its documents bind a teacher.

Terms attach to the route (provider, host, model, day), not to the model alone: the same weights are under one licence
on your own server and under another contract through an API. Every document that fits counts, never the first one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import BaseModel

from corpusgen.provenance.documents import (
    STRICTNESS,
    AddRule,
    DataLicence,
    DocumentKind,
    DutyKind,
    Grant,
    KnownHost,
    KnownTeacher,
    Review,
    Route,
    TermsDocument,
    TermsDuty,
    TermsFile,
    UnpaidTier,
    YesNo,
)
from corpusgen.provenance.linting import ReadFile, read_terms
from corpusgen.records import Json, digest

__all__ = [
    "STRICTNESS",
    "AddRule",
    "DataLicence",
    "DocumentKind",
    "DutyKind",
    "Gap",
    "Grant",
    "KnownHost",
    "KnownTeacher",
    "Registry",
    "Review",
    "Route",
    "Stale",
    "TeacherRoute",
    "TermsDocument",
    "TermsDuty",
    "TermsMatch",
    "UnpaidTier",
    "YesNo",
    "host_name",
    "load_registry",
    "of_model",
    "stale",
    "terms_set_id",
    "with_reviews",
    "with_texts",
]


_READING = {"reviewed", "text_sha256"}
"""What of a document tells of its reading, and not what it says."""
_WRITTEN_HOST = re.compile(r"^(?:\w+://)?(?:[^/@]*@)?(\[[^\]]*\]|[^:/]*)")


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
    region: str | None = None
    """Where it works on what is sent to it, as a cloud or a country code spells it; None: not known."""
    unpaid: bool = False
    """Reached by a tier that costs nothing, whose provider may read and train on what is sent."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Why a set of terms cannot be relied on."""

    about: Literal["model", "host", "route", "pinned", "original"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Stale:
    """A document that somebody should read again."""

    terms_id: str
    reviewed: date
    days: int
    file: str


@dataclass(frozen=True, kw_only=True)
class TermsMatch:
    """Every document that binds a teacher, and what is missing before that set can be relied on."""

    documents: tuple[TermsDocument, ...]
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Registry:
    """All terms and licences known here; equal files make an equal digest, by which it is also hashed."""

    documents: tuple[TermsDocument, ...]
    data_licences: tuple[DataLicence, ...]
    always_add: tuple[AddRule, ...] = ()
    known_hosts: tuple[KnownHost, ...] = ()
    known_teachers: tuple[KnownTeacher, ...] = ()
    needs_host_terms: tuple[Route, ...] = ()
    stale_after_days: int = 90
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What lies in a region, by the region's name."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The files of documents that did not come with corpusgen, by the documents' ids."""
    overridden: Mapping[str, str] = field(default_factory=dict)
    """Ids of documents that another one stands in for, and its id."""
    notice: str = ""
    known_gaps: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def by_id(self) -> dict[str, TermsDocument]:
        """Documents by their id, and by the ids of those they stand in for."""
        own = {document.id: document for document in self.documents}
        return {**{old: own[new] for old, new in self._standing_in.items() if new in own}, **own}

    @cached_property
    def _standing_in(self) -> dict[str, str]:
        return {old: self._now(old) for old in self.overridden}

    def _now(self, name: str) -> str:
        """The id that a document goes by after every override; there is no way back, so this ends."""
        return self._now(self.overridden[name]) if name in self.overridden else name

    def version_of(self, terms_id: str) -> str | None:
        """sha256 of what a document or licence says, whenever it was last read; None where there is none such."""
        if terms_id not in self._versions:
            part = self.by_id.get(terms_id) or self.licence_names.get(terms_id)
            self._versions[terms_id] = None if part is None else digest(part.model_dump(mode="json", exclude=_READING))
        return self._versions[terms_id]

    @cached_property
    def _versions(self) -> dict[str, str | None]:
        return {}

    def file_of(self, terms_id: str) -> str:
        """The file of a document of the user's own; empty for one that came with corpusgen."""
        return self.files.get(terms_id, "")

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
                "regions": {name: sorted(inside) for name, inside in self.regions.items()},
                "overridden": dict(self.overridden),
            }
        )

    def matching(self, route: TeacherRoute, on: date) -> TermsMatch:
        """Every document that binds this teacher on that day, found by its route first and then by its model."""
        if route.route == "imported":
            return TermsMatch(documents=())
        candidates = [document for document in self.documents if _applies(document, route, on)]
        found = {document.id: document for document in candidates if _fit(document, route.model)}
        for rule in self.always_add:
            found |= {document.id: document for document in self._added(rule, route, on, tuple(found.values()))}
        found |= {self.by_id[name].id: self.by_id[name] for name in route.pinned_terms if name in self.by_id}
        documents = tuple(found[name] for name in sorted(found))
        return TermsMatch(documents=documents, gaps=tuple(self._gaps(route, on, documents)))

    def originally(self, terms_ids: Collection[str]) -> TermsMatch:
        """The documents an earlier request was made under, whatever is in force today."""
        unknown = sorted(name for name in terms_ids if name not in self.by_id)
        texts = [f"the original request names terms {name!r}, which no registry file has" for name in unknown]
        if not terms_ids:
            texts.append("the original request names no terms")
        known = sorted({self.by_id[name].id for name in terms_ids if name in self.by_id})
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
        named = {self.by_id[name].id for name in rule.add if name in self.by_id}
        for document in self.documents:
            by_kind = (
                document.kind == rule.add_kind and document.provider in providers and route.route in document.routes
            )
            if document.in_force(on) and (by_kind or document.id in named):
                yield document

    def _gaps(self, route: TeacherRoute, on: date, documents: Sequence[TermsDocument]) -> Iterator[Gap]:
        where = f"route {route.route}" + (f", host {route.host}" if route.host else "")
        applying = [document for document in documents if _applies(document, route, on)]
        of_model = [one for one in applying if one.kind != "host_terms" and _served_there(one, route)]
        if not any(_fit(document, route.model) == "model" for document in of_model):
            told = f"no terms document covers model {route.model!r} on {where}"
            yield Gap(about="model", text=told + self._elsewhere(route, on))
        if route.route in self.needs_host_terms and not any(document.kind == "host_terms" for document in applying):
            text = f"no terms document covers the host {route.host!r} on route {route.route}"
            yield Gap(about="host", text=text)
        yield from self._contradictions(route)
        yield from _pin_gaps(route, documents, self)

    def _elsewhere(self, route: TeacherRoute, on: date) -> str:
        """The contracts that would cover a model, and the hosts they are with."""
        told = [
            f"{document.id} is with {' and '.join(document.served_at)} only"
            for document in self.documents
            if not _served_there(document, route) and document.in_force(on) and _fit(document, route.model) == "model"
        ]
        return f" ({'; '.join(told)})" if told else ""

    def _contradictions(self, route: TeacherRoute) -> Iterator[Gap]:
        for known in self.known_hosts:
            if fnmatchcase(host_name(route.host), known.host) and route.route not in known.routes:
                told = f"host {route.host} is reached by route {' or '.join(known.routes)}, not by {route.route}"
                write = " or ".join(f"`route: {one}`" for one in known.routes)
                yield Gap(about="route", text=f"{told}; write {write}")


def load_registry(shipped: Path, *extra: Path) -> Registry:
    """The shipped registry with the organisation's own files. Raises LocatedError with every mistake found.

    A file may add documents, and override one of an earlier file by saying so (``overrides``).
    """
    return _loaded(tuple((path, _bytes(path)) for path in (shipped, *extra)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # what reads it says why


@lru_cache(maxsize=8)
def _loaded(files: tuple[tuple[Path, bytes], ...]) -> Registry:
    """A registry as it was made when its files held these bytes; every run of a process asks for the same few."""
    read, folded = read_terms([path for path, _ in files])
    own = {name: str(path) for name, path in folded.origins.items() if path != files[0][0]}
    return _merge(read, tuple(folded.documents.values()), own, folded.overridden)


def with_reviews(registry: Registry, reviews: Iterable[Review]) -> Registry:
    """The registry as it stands after somebody has read documents again.

    A review that found another text than the one that is kept refreshes nothing: what was read is not what binds.
    """
    latest: dict[str, date] = {}
    for review in reviews:
        document = registry.by_id.get(review.terms)
        if document is not None and _same_text(review, document):
            latest[document.id] = max(review.reviewed, latest.get(document.id, document.reviewed))
    return _changed(registry, {name: {"reviewed": day} for name, day in latest.items()})


def with_texts(registry: Registry, texts: Mapping[str, str]) -> Registry:
    """The registry with the sha256 of the texts that were kept, by the documents' ids."""
    kept = {registry.by_id[name].id: text for name, text in texts.items() if name in registry.by_id}
    return _changed(registry, {name: {"text_sha256": text} for name, text in kept.items()})


def _same_text(review: Review, document: TermsDocument) -> bool:
    return None in (review.found_text_sha256, document.text_sha256) or review.found_text_sha256 == document.text_sha256


def _changed(registry: Registry, changes: Mapping[str, Mapping[str, object]]) -> Registry:
    if not changes:
        return registry
    documents = (
        document.model_copy(update=dict(changes[document.id])) if document.id in changes else document
        for document in registry.documents
    )
    return replace(registry, documents=tuple(documents))


def stale(registry: Registry, on: date) -> tuple[Stale, ...]:
    """Documents whose last reading is older than the registry allows, the oldest first.

    Licences of weights are among them: they go stale for teachers whose weights are not pinned by digest.
    """
    oldest = on - timedelta(days=registry.stale_after_days)
    found = (
        Stale(
            terms_id=document.id,
            reviewed=document.reviewed,
            days=(on - document.reviewed).days,
            file=registry.file_of(document.id),
        )
        for document in registry.documents
        if document.reviewed < oldest and not _is_house_rule(document) and document.in_force(on)
    )
    return tuple(sorted(found, key=lambda one: (one.reviewed, one.terms_id)))


OWN_ROUTES: tuple[Route, ...] = ("mock", "self_hosted")
"""Routes on which one's own documents (``kind: own``) are nobody else's to change, so they need no new reading."""


def _is_house_rule(document: TermsDocument) -> bool:
    return document.kind == "own" and all(route in OWN_ROUTES for route in document.routes)


def of_model(duty: TermsDuty, model: str) -> bool:
    """True if a duty is one of this model, and not of its siblings under the same document only."""
    return not duty.models or _any_fits(duty.models, _names(model))


def terms_set_id(documents: Iterable[TermsDocument]) -> str:
    """sha256 of the sorted ids of a set of documents: what a record stores instead of the list."""
    return hashlib.sha256("\n".join(sorted(document.id for document in documents)).encode()).hexdigest()


def _merge(
    read: Sequence[ReadFile],
    documents: tuple[TermsDocument, ...],
    own: Mapping[str, str],
    overridden: Mapping[str, str],
) -> Registry:
    files = [one.file for one in read]
    stale_after = [file.stale_after_days for file in files if file.stale_after_days is not None]
    registry = Registry(
        documents=documents,
        data_licences=tuple(licence for file in files for licence in file.data_licences),
        always_add=tuple(rule for file in files for rule in file.always_add),
        known_hosts=tuple(host for file in files for host in file.known_hosts),
        known_teachers=tuple(teacher for file in files for teacher in file.known_teachers),
        needs_host_terms=tuple(sorted({route for file in files for route in file.needs_host_terms})),
        stale_after_days=min(stale_after, default=90),
        regions=_regions(files),
        files=own,
        overridden=overridden,
        notice=next((file.notice for file in files if file.notice), ""),
        known_gaps=tuple(gap for file in files for gap in file.known_gaps),
    )
    return with_reviews(registry, [review for file in files for review in file.reviews])


def _regions(files: Sequence[TermsFile]) -> dict[str, tuple[str, ...]]:
    names = sorted({name for file in files for name in file.regions})
    return {name: tuple(sorted({one for file in files for one in file.regions.get(name, ())})) for name in names}


def _sorted_dump(parts: Sequence[BaseModel]) -> list[Json]:
    return sorted((part.model_dump(mode="json") for part in parts), key=digest)


# --- Which documents fit ---------------------------------------------------------------------------------------------


def _applies(document: TermsDocument, route: TeacherRoute, on: date) -> bool:
    return (
        route.route in document.routes
        and document.in_force(on)
        and (not document.providers or route.provider in document.providers)
        and (not document.hosts or any(fnmatchcase(host_name(route.host), host) for host in document.hosts))
        and (_served_there(document, route) or "prohibited" in _grants(document))
    )


def _served_there(document: TermsDocument, route: TeacherRoute) -> bool:
    """Whether a provider's contract is one with that host. Aggregators and clouds have terms of their own to say so."""
    if route.route != "api" or not document.served_at:
        return True
    return any(fnmatchcase(host_name(route.host), host) for host in document.served_at)


def _grants(document: TermsDocument) -> tuple[Grant, Grant]:
    return document.outputs_train, document.outputs_train_competing


@lru_cache(maxsize=1024)
def host_name(host: str) -> str:
    """The name alone as it is connected to, however it was written: no scheme, user, port, path, brackets or last dot.

    Letters beyond ASCII and percent signs become what a connection makes of them.
    """
    return _bare(_as_connected_to(host))


def _as_connected_to(host: str) -> str:
    if host.isascii() and "%" not in host:
        return host
    plain = unicodedata.normalize("NFKC", unquote(host)).lower().replace("。", ".")
    try:
        return plain if plain.isascii() else plain.encode("idna").decode("ascii")
    except UnicodeError:
        return plain


def _bare(host: str) -> str:
    if host.count(":") > 1 and "[" not in host and "/" not in host:
        return host.lower()  # an IPv6 address as it is
    found = _WRITTEN_HOST.match(host.lower())
    return found[1].strip("[]").rstrip(".") if found else host.lower()


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
    return _globs(pattern, name) or (pattern.endswith("-*") and _globs(pattern[:-2], name))


def _globs(pattern: str, name: str) -> bool:
    # Hundreds of globs are looked at for a decision; only the few that begin alike are worth compiling.
    return name.startswith(_beginning(pattern)) and fnmatchcase(name, pattern)


@lru_cache(maxsize=4096)
def _beginning(pattern: str) -> str:
    """What a glob's names all begin with."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _pin_gaps(route: TeacherRoute, documents: Sequence[TermsDocument], registry: Registry) -> Iterator[Gap]:
    if not route.pinned_terms:
        return
    pinned = {registry.by_id[name].id for name in route.pinned_terms if name in registry.by_id}
    for name in route.pinned_terms:
        if name not in registry.by_id:
            yield Gap(about="pinned", text=f"terms names {name!r}, which no registry file has")
    for document in documents:
        if document.id not in pinned:
            file = registry.file_of(document.id)
            named = f"{document.id} (in {file})" if file else document.id
            yield Gap(about="pinned", text=f"{named} binds this teacher too; add it to the teacher's terms")
