"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corpusgen.errors import CorpusgenError, UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.spec import Unit

F = TypeVar("F", bound=Callable[..., Any])

corpus_option = click.option(
    "--corpus",
    "corpus_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("corpus"),
    envvar="CORPUSGEN_CORPUS",
    show_default="./corpus, or CORPUSGEN_CORPUS",
    help="Folder of the corpus.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
spec_argument = click.argument("spec", type=click.Path(path_type=Path, dir_okay=False))
budget_option = click.option(
    "--budget",
    metavar="usd=5,tokens=1e6,requests=1000",
    help="Caps of this run over all its starts, in place of the spec's.",
)


def parse_budget(text: str | None) -> Mapping[Unit, int]:
    """Caps by unit from ``usd=5,tokens=1e6``. Raises UsageError that names the part and what to write."""
    from corpusgen.spec import count, microusd

    readers: dict[str, tuple[Unit, Callable[[Any], int]]] = {
        "usd": ("microusd", microusd),
        "tokens": ("tokens", count),
        "requests": ("requests", count),
    }
    caps: dict[Unit, int] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in readers or not value:
            raise UsageError(f"--budget: {part!r} is not one of usd=…, tokens=…, requests=…")
        unit, read = readers[name.strip()]
        try:
            caps[unit] = read(value.strip())
        except ValueError as error:
            raise UsageError(f"--budget {name.strip()}: {error}") from error
    return caps


@contextmanager
def opened(folder: Path) -> Iterator[Corpus]:
    """The corpus in a folder, made if it is not there."""
    from corpusgen.corpus import Corpus

    with Corpus.open(folder) as corpus:
        yield corpus


@contextmanager
def existing(folder: Path) -> Iterator[Corpus]:
    """A corpus that is there already. Raises UsageError otherwise; reading commands make nothing."""
    if not (folder / "journal.sqlite").exists():
        raise UsageError(f"no corpus in {str(folder)!r}; name one with --corpus, or make one with corpusgen run")
    with opened(folder) as corpus:
        yield corpus


def emit(value: Any) -> None:
    """One JSON object on stdout."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=str).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def errors_as_json(as_json: bool) -> Iterator[None]:
    """With --json, an error is one JSON object on stdout as well as words on stderr."""
    try:
        yield
    except CorpusgenError as error:
        if as_json:
            emit({"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code})
        raise


def money(microusd: int) -> str:
    """Micro-dollars as dollars."""
    return f"${microusd / 1_000_000:,.6f}"
