"""Reading terms files, and every mistake in them with its file, its line and the value to change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import orjson
from pydantic import ValidationError

from corpusgen.errors import LocatedError, Problem
from corpusgen.provenance.documents import STRICTNESS, DataLicence, TermsDocument, TermsDuty, TermsFile
from corpusgen.records import Json
from corpusgen.spec import read_yaml

MAX_QUOTE_WORDS = 20
COUNTRY = re.compile(r"^[a-z]{2}$")
LICENCE_REF = re.compile(r"^LicenseRef-[A-Za-z0-9.-]+$")

_Place: TypeAlias = tuple[str | int, ...]
_Lines: TypeAlias = dict[_Place, int]
_NEEDS_WORDS = ("naming", "no_trademark")
_CAPS = ("mau_cap", "revenue_cap")


@dataclass(frozen=True, kw_only=True)
class ReadFile:
    """A terms file as it was read."""

    path: Path
    file: TermsFile
    lines: _Lines

    def problem(self, place: _Place, message: str) -> Problem:
        """A mistake at a place of this file."""
        return _problem(self.path, self.lines, place, message)


@dataclass(frozen=True, kw_only=True)
class Folded:
    """The documents of several files once later ones have taken the place of earlier ones."""

    documents: dict[str, TermsDocument] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)
    overridden: dict[str, str] = field(default_factory=dict)
    """Ids that another document now stands in for."""
    problems: list[Problem] = field(default_factory=list)


def read_terms(paths: Sequence[Path]) -> tuple[list[ReadFile], Folded]:
    """Terms files and what holds of them together. Raises LocatedError with every mistake found."""
    files = [_read(path) for path in paths]
    folded = fold(files)
    problems = [problem for one in files for problem in _lint(one)]
    problems += [*folded.problems, *_lint_together(files, folded)]
    if problems:
        raise LocatedError(*problems)
    return files, folded


def fold(files: Sequence[ReadFile]) -> Folded:
    """Each file's documents after those of the files before it."""
    folded = Folded()
    for one in files:
        earlier = set(folded.documents)
        for index, document in enumerate(one.file.documents):
            mistake = _misplaced(document, earlier, folded)
            if mistake:
                folded.problems.append(one.problem(("documents", index, mistake[0]), mistake[1]))
                continue
            if document.overrides is not None:
                earlier.discard(document.overrides)
                del folded.documents[document.overrides]
                if document.overrides != document.id:
                    folded.overridden[document.overrides] = document.id
            folded.documents[document.id] = document
            folded.origins[document.id] = one.path
    return folded


def _misplaced(document: TermsDocument, earlier: set[str], folded: Folded) -> tuple[str, str] | None:
    target = document.overrides
    if target is not None and target in folded.overridden:
        now = folded.overridden[target]
        return "overrides", f"{target!r} is already overridden by {now!r} in {folded.origins[now]}; override that one"
    if target is not None and target not in earlier:
        return "overrides", f"no earlier file has a document {target!r}; correct the id or leave overrides out"
    taken = document.id in folded.documents or document.id in folded.overridden
    if taken and document.id != target:
        first = folded.origins[document.id]
        how = f"give this one an id of its own, or write `overrides: {document.id}` to put it in that one's place"
        return "id", f"{document.id!r} stands twice, first in {first}; {how}"
    return None


# --- Reading ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> ReadFile:
    try:
        raw = path.read_bytes()
    except OSError:
        raw = b""  # what reads it says why
    return _read_once(path, raw)


@lru_cache(maxsize=32)
def _read_once(path: Path, raw: bytes) -> ReadFile:
    """A file as it was read and checked when it held these bytes; every run of a process looks at the same few."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise LocatedError(Problem(file=path, line=1, field="", message="a terms file is a mapping with `documents`"))
    try:
        return ReadFile(path=path, file=TermsFile.model_validate_json(orjson.dumps(value)), lines=lines)
    except ValidationError as error:
        raise LocatedError(
            *(_problem(path, lines, found["loc"], _message(found)) for found in error.errors())
        ) from error


def _message(found: Mapping[str, Json]) -> str:
    if found["type"] == "extra_forbidden":
        return "no such field"
    if found["type"] == "missing":
        return "this field is required"
    shown = found["input"]
    return str(found["msg"]) if isinstance(shown, dict | list) else f"{found['msg']}, found {shown!r}"


def _problem(path: Path, lines: _Lines, place: _Place, message: str) -> Problem:
    line = next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), None)
    return Problem(file=path, line=line, field=".".join(map(str, place)), message=message)


# --- Each document by itself -----------------------------------------------------------------------------------------


def _lint(one: ReadFile) -> Iterator[Problem]:
    for index, document in enumerate(one.file.documents):
        for place, message in (*_mistakes(document), *_never_fits(document), *_misdone(document)):
            yield one.problem(("documents", index, *place), f"{document.id}: {message}")


def _mistakes(document: TermsDocument) -> Iterator[tuple[_Place, str]]:
    words = len(document.quote.split())
    if words > MAX_QUOTE_WORDS:
        yield ("quote",), f"a quotation has at most {MAX_QUOTE_WORDS} words, found {words}; shorten it"
    if document.quote and not document.quote_location:
        yield ("quote",), "say where the quotation stands in quote_location"
    if STRICTNESS[document.outputs_train_competing] < STRICTNESS[document.outputs_train]:
        found = f"must be at least as strict as outputs_train, which is {document.outputs_train}"
        yield ("outputs_train_competing",), f"{found}; found {document.outputs_train_competing}"
    if document.effective and document.superseded and document.superseded <= document.effective:
        yield ("superseded",), f"must come after effective, which is {document.effective}; found {document.superseded}"
    if document.kind == "host_terms" and not document.hosts:
        yield ("kind",), "host_terms need hosts; add `hosts: [...]`"
    if document.kind == "api_terms" and _grants(document) and not _whose(document):
        yield ("kind",), "api_terms that allow something need hosts: whose service it is; add `hosts: [...]`"


def _grants(document: TermsDocument) -> bool:
    return bool({"allowed", "conditional"} & {document.outputs_train, document.outputs_train_competing})


def _whose(document: TermsDocument) -> tuple[str, ...]:
    """What ties a contract to those it was made with."""
    return document.hosts + document.served_at + document.providers


def _never_fits(document: TermsDocument) -> Iterator[tuple[_Place, str]]:
    for name in ("models", "models_excluded", "hosts", "served_at"):
        for at, pattern in enumerate(getattr(document, name)):
            if pattern != re.sub(r"[_:@]", "-", pattern.lower()):
                yield (name, at), f"{pattern!r} can never fit: write it in lower case, with - for _ : @"


def _misdone(document: TermsDocument) -> Iterator[tuple[_Place, str]]:
    """Duties that say something which nothing reads, or leave out what a release is checked by."""
    for at, duty in enumerate(document.duties):
        yield from ((("duties", at, name), message) for name, message in _duty_mistakes(duty))


def _duty_mistakes(duty: TermsDuty) -> Iterator[tuple[str, str]]:
    if duty.kind in _NEEDS_WORDS and not duty.words:
        yield "kind", f"{duty.kind} needs words: what the name must begin with, or must not hold"
    if duty.limit is not None and duty.kind not in _CAPS:
        yield "limit", f"only {' and '.join(_CAPS)} have a limit, found kind {duty.kind}"
    if duty.regions and duty.kind != "residency":
        yield "regions", f"only residency has regions, found kind {duty.kind}"


# --- All of them together --------------------------------------------------------------------------------------------


def _lint_together(files: Sequence[ReadFile], folded: Folded) -> Iterator[Problem]:
    yield from _licences_twice(files)
    known = folded.documents.keys() | folded.overridden.keys()
    licences = {licence.spdx: licence for one in files for licence in one.file.data_licences}
    listed = {name for licence in licences.values() for name in (licence.spdx, *licence.aliases)}
    for one in files:
        for place, name in _mentions(one.file):
            if name not in known:
                yield one.problem(place, f"no document has the id {name!r}; correct it or add the document")
        for place, message in (*_unlisted(one.file, listed), *_becoming_nothing(one.file, licences)):
            yield one.problem(place, message)
    yield from _regions_twice(files)
    yield from _unlike_spellings(files)
    yield from _succession(files, folded)


def _mentions(file: TermsFile) -> Iterator[tuple[_Place, str]]:
    for index, rule in enumerate(file.always_add):
        yield from ((("always_add", index, "add"), name) for name in rule.add)
    yield from ((("reviews", index, "terms"), review.terms) for index, review in enumerate(file.reviews))
    for index, document in enumerate(file.documents):
        if document.supersedes is not None:
            yield ("documents", index, "supersedes"), document.supersedes


def _unlisted(file: TermsFile, listed: set[str]) -> Iterator[tuple[_Place, str]]:
    for index, document in enumerate(file.documents):
        if document.spdx not in listed and not LICENCE_REF.match(document.spdx):
            message = f"{document.id}: {document.spdx!r} is not among data_licences; add it there or write LicenseRef-…"
            yield ("documents", index, "spdx"), message


def _becoming_nothing(file: TermsFile, licences: Mapping[str, DataLicence]) -> Iterator[tuple[_Place, str]]:
    for index, licence in enumerate(file.data_licences):
        for name in licence.becomes:
            if name not in licences or not licences[name].share_alike:
                message = f"{licence.spdx}: {name!r} is no share-alike licence among data_licences; correct it"
                yield ("data_licences", index, "becomes"), message


def _regions_twice(files: Sequence[ReadFile]) -> Iterator[Problem]:
    """A later file may name regions of its own; more in one that is known would let data go where it may not."""
    known: dict[str, frozenset[str]] = {}
    for at, one in enumerate(files):
        for name, inside in one.file.regions.items():
            place = name.casefold()
            taken = place in known or bool(COUNTRY.match(place)) or any(place in there for there in known.values())
            added = {part.casefold() for part in inside} - known.get(place, frozenset())
            if at and taken and added:
                message = f"{name!r} is a known place, and {min(added)!r} is not in it; name a region of your own"
                yield one.problem(("regions", name), message)
        for name, inside in one.file.regions.items():
            found = {part.casefold() for part in inside}
            known[name.casefold()] = known.get(name.casefold(), frozenset()) | found


def _unlike_spellings(files: Sequence[ReadFile]) -> Iterator[Problem]:
    """One licence under two spellings would be counted as two."""
    spelt: dict[str, str] = {}
    for one in files:
        for section in ("documents", "data_licences"):
            for index, part in enumerate(getattr(one.file, section)):
                first = spelt.setdefault(part.spdx.casefold(), part.spdx)
                if first != part.spdx:
                    message = f"{part.spdx!r} is written {first!r} elsewhere; write it alike"
                    yield one.problem((section, index, "spdx"), message)


def _licences_twice(files: Sequence[ReadFile]) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for one in files:
        for index, licence in enumerate(one.file.data_licences):
            for name in (licence.spdx, *licence.aliases):
                if name in seen:
                    message = f"{name!r} stands twice, first in {seen[name]}; give this one a name of its own"
                    yield one.problem(("data_licences", index, "spdx"), message)
                seen.setdefault(name, one.path)


def _succession(files: Sequence[ReadFile], folded: Folded) -> Iterator[Problem]:
    for one in files:
        for index, document in enumerate(one.file.documents):
            if folded.documents.get(document.id) is document and document.supersedes is not None:
                message = _misfollows(document, folded)
                if message:
                    yield one.problem(("documents", index, "supersedes"), f"{document.id}: {message}")


def _misfollows(document: TermsDocument, folded: Folded) -> str | None:
    circle = _circle(document, folded)
    if circle:
        return f"supersedes itself by way of {' -> '.join(circle)}; break the circle at one of them"
    earlier = folded.documents.get(folded.overridden.get(document.supersedes or "", document.supersedes or ""))
    if earlier is None or earlier.superseded is None or document.effective is None:
        return None
    if earlier.superseded < document.effective:
        between = f"from {earlier.superseded} to {document.effective}"
        return f"{between} neither it nor {earlier.id} is in force; make superseded and effective meet"
    return None


def _circle(document: TermsDocument, folded: Folded) -> list[str]:
    """The ids on the way back to where it began; empty where there is no way back."""
    seen, current = [document.id], document.supersedes
    while current is not None:
        current = folded.overridden.get(current, current)
        if current in seen:
            return [*seen, current] if current == document.id else []
        seen.append(current)
        current = folded.documents[current].supersedes if current in folded.documents else None
    return []
