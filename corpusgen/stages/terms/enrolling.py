"""Enrolling: a teacher of one's own, with its address and the terms it is known to be under."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.terms.deciding import registry_of
from corpusgen.stages.terms.registering import add_terms, documents_of
from corpusgen.store.durable import make_folder, write_file
from corpusgen.teachers.addresses import host_problem
from corpusgen.teachers.own import own_file, written
from corpusgen.teachers.table import EndpointRow, Route


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """A teacher that specs can name from now on."""

    row: EndpointRow
    file: Path


def enrol(
    corpus: Corpus | None,
    name: str,
    *,
    base_url: str,
    provider: str,
    route: Route,
    terms: Sequence[str],
    key_env: str | None,
    on: date,
) -> Enrolled:
    """Write a teacher down for all corpora of this user, pinned to terms that are there or come in a file.

    Files of terms are added to the organisation's. Raises UsageError or LocatedError; nothing is written then.
    """
    target, host = own_file(), urlsplit(base_url).hostname
    if target is None:
        raise UsageError("CORPUSGEN_TEACHERS is off; let it name the file to add to")
    if not host or urlsplit(base_url).scheme not in ("http", "https"):
        raise UsageError(f"--base-url: {base_url!r} is no address; write https://<host>/v1")
    if problem := host_problem(host):
        raise UsageError(f"--base-url: {problem}")
    files = [Path(one) for one in terms if _is_file(one)]
    ids = [one for one in terms if not _is_file(one)]
    known = registry_of(corpus, None).by_id if ids else {}
    if unknown := [one for one in ids if one not in known]:
        raise UsageError(
            f"--terms: no terms document has the id {unknown[0]!r}; corpusgen terms list names them, or name a file"
        )
    pinned = [known[one].id for one in ids] + [one for file in files for one in documents_of(file)]
    row = _row(name, base_url, host, provider, route, pinned, key_env, on)
    make_folder(target.parent)
    with one_at_a_time(target.with_name(f".{target.name}.lock")):
        content = written(row)
        for file in files:
            add_terms(corpus, file, organisation=True)
        write_file(target, content)
    return Enrolled(row=row, file=target)


def _is_file(told: str) -> bool:
    return told.endswith((".yaml", ".yml"))


def _row(
    name: str,
    base_url: str,
    host: str,
    provider: str,
    route: Route,
    terms: Sequence[str],
    key_env: str | None,
    on: date,
) -> EndpointRow:
    if key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_env):
        raise UsageError("--key-env: must be the name of an environment variable, such as MY_API_KEY, never the key")
    try:
        return EndpointRow(
            name=name,
            title=name,
            provider=provider,
            route=route,
            hosts=(host.lower(),),
            base_url=base_url.rstrip("/"),
            key_env=key_env,
            terms=tuple(dict.fromkeys(terms)),
            # As for any server that nobody has described.
            apis=("chat", "completion"),
            top_logprobs=20,
            json_schema="json_schema",
            source="corpusgen teachers add",
            as_of=on.isoformat(),
            confidence="low",
        )
    except ValidationError as error:
        found = error.errors()[0]
        field = ".".join(map(str, found["loc"])) or "name"
        raise UsageError(
            f"{field}: {found['msg']}, found {found['input']!r}; a name is small letters, digits and _"
        ) from error
