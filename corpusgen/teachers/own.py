"""Servers of one's own: rows of a file in corpusgen's settings folder, beside those that ship."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import yaml

from corpusgen.errors import UsageError
from corpusgen.teachers.billing import load_rows, shipped_rows
from corpusgen.teachers.table import EndpointRow

ENVIRONMENT = "CORPUSGEN_TEACHERS"
"""Names the file, where it is not the usual one; ``off``: there is none."""


def own_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where one's own teachers are written down, whether there are any or not; None where they are off."""
    if named := environ.get(ENVIRONMENT, "").strip():
        return None if named == "off" else Path(named)
    from platformdirs import user_config_path

    return user_config_path("corpusgen", appauthor=False) / "teachers.yaml"


def own_rows() -> tuple[EndpointRow, ...]:
    """The servers that somebody here has added. Raises SpecError with the line of each mistake."""
    file = own_file()
    try:
        found = None if file is None else file.stat()
    except OSError:
        found = None
    if file is None or found is None:
        return ()
    return _rows(file, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=4)
def _rows(path: Path, *_: int) -> tuple[EndpointRow, ...]:
    return load_rows(path)


def known_rows() -> tuple[EndpointRow, ...]:
    """Every server that is known here; what ships cannot be replaced."""
    shipped = shipped_rows()
    names = {row.name for row in shipped}
    return (*shipped, *(row for row in own_rows() if row.name not in names))


def written(row: EndpointRow) -> bytes:
    """The file of one's own teachers with one more in it. Raises UsageError where the name is taken."""
    if row.name in {one.name for one in known_rows()}:
        raise UsageError(f"there is a teacher {row.name!r} already (corpusgen teachers list); choose another name")
    rows = [one.model_dump(mode="json", exclude_defaults=True) for one in (*own_rows(), row)]
    table = {"schema": "corpusgen.endpoints/1", "billing": [], "endpoints": rows}
    return yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=100).encode()
