"""Reading the lineage: its tables and views in a database that holds nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb

from corpusgen.errors import CorpusDamaged, StoreError
from corpusgen.provenance.lineage import SCHEMAS, VIEWS
from corpusgen.records import Json

NOTE: Final = "made_of.json"
"""Says, beside the tables, which state of the corpus they tell of."""

_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "threads": "2",
}


class Lineage:
    """Answers questions about lineage tables, in rows by column."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, sql: str, **values: Json) -> list[dict[str, Any]]:
        """All rows of a question. Raises CorpusDamaged where a table cannot be read."""
        try:
            found = self._connection.execute(sql, values or None)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise unreadable(error) from error

    def run(self, sql: str, **values: Json) -> None:
        """Make something that later questions are asked of."""
        self._connection.execute(sql, values or None)


@contextmanager
def reading(files: Mapping[str, Path]) -> Iterator[Lineage]:
    """The tables in these files, with the views that follow them."""
    with opened(files) as connection:
        yield Lineage(connection)


@contextmanager
def opened(files: Mapping[str, Path], views: Mapping[str, str] = VIEWS) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with a view for each table and for what follows from them; a table without a file is empty.

    Raises CorpusDamaged where a file cannot be read, and StoreError where somebody has put the lineage of another
    state in its place meanwhile: its numbers would not fit together.
    """
    with _unchanged(files), duckdb.connect(":memory:", config=dict(_SETTINGS)) as connection:
        for name, schema in SCHEMAS.items():
            if name not in files:
                connection.register(name, schema.empty_table())
        try:
            for name, path in files.items():
                connection.execute(f"create view {name} as from read_parquet({quoted(path)})")
            for name, text in views.items():
                connection.execute(f"create view {name} as {text}")
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise unreadable(error) from error
        yield connection


def unreadable(error: duckdb.Error) -> CorpusDamaged:
    """What is said of tables that cannot be read."""
    return CorpusDamaged(f"the lineage cannot be read ({error}); it is made anew when lineage/ is deleted")


@contextmanager
def _unchanged(files: Mapping[str, Path]) -> Iterator[None]:
    notes = {path.with_name(NOTE) for path in files.values()}
    before = {note: _said(note) for note in notes}
    yield
    for note, said in before.items():
        if _said(note) != said:
            raise StoreError(f"{note.parent}: the corpus has changed while its lineage was read; ask again")


def _said(note: Path) -> bytes:
    try:
        return note.read_bytes()
    except OSError:
        return b""


def quoted(path: Path) -> str:
    """A path as SQL writes text, its stars no pattern; a view takes no parameters."""
    return "'" + without_pattern(path).replace("'", "''") + "'"


def without_pattern(path: Path) -> str:
    """A path in which a star is a star."""
    return re.sub(r"([*?\[])", r"[\1]", str(path.absolute()))
