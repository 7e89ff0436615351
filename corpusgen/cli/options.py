"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.fields import Unit
    from corpusgen.stages.at_service.wire import Address

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
terms_spec_option = click.option(
    "--spec", type=click.Path(path_type=Path, dir_okay=False), help="A task spec whose terms_files count as well."
)
DAY = click.DateTime(["%Y-%m-%d"])
"""The type of an option that is a day."""
budget_option = click.option(
    "--budget",
    metavar="usd=5,tokens=1e6,requests=1000",
    help="Caps of this run over all its starts, in place of the spec's.",
)

service_option = click.option(
    "--service",
    metavar="URL",
    envvar="CORPUSGEN_SERVICE",
    help="Pay out of this service's budget and share answers with it; the token is CORPUSGEN_SERVICE_TOKEN.",
)


def service_at(url: str | None) -> Address | None:
    """The service of ``--service``. Raises UsageError for an address or a token that will not do."""
    if url is None:
        return None
    from corpusgen.stages.at_service.wire import address

    return address(url)


def parse_budget(text: str | None) -> Mapping[Unit, int]:
    """Caps by unit from ``usd=5,tokens=1e6``. Raises UsageError that names the part and what to write."""
    caps = {} if text is None else parse_caps(text, "--budget")
    return {unit: cap for unit, cap in caps.items() if cap is not None}


def parse_caps(text: str, told: str, *, none: bool = False) -> dict[Unit, int | None]:
    """Caps by unit; with ``none`` that word may stand for no cap. ``told`` is what messages begin with."""
    from corpusgen.fields import count, microusd, seconds

    readers: dict[str, tuple[Unit, Callable[[Any], int]]] = {
        "usd": ("microusd", microusd),
        "tokens": ("tokens", count),
        "requests": ("requests", count),
        "compute_s": ("compute_us", seconds),
        "wall_s": ("wall_us", seconds),
    }
    caps: dict[Unit, int | None] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in readers or not value:
            raise UsageError(f"{told}: {part!r} is not one of {', '.join(f'{known}=...' for known in readers)}")
        unit, read = readers[name]
        if unit in caps:
            raise UsageError(f"{told}: {name} stands twice; write it once")
        try:
            caps[unit] = None if none and value == "none" else read(value)
        except ValueError as error:
            raise UsageError(f"{told} {name}: {error}") from error
    return caps


@contextmanager
def opened(folder: Path, *, reading: bool = False, erasing: bool = False) -> Iterator[Corpus]:
    """The corpus in a folder, made if it is not there."""
    from corpusgen.corpus import Corpus

    with Corpus.open(folder, reading=reading, erasing=erasing) as corpus:
        yield corpus


@contextmanager
def existing(folder: Path, *, reading: bool = False, erasing: bool = False) -> Iterator[Corpus]:
    """A corpus that is there already, with ``reading`` writable or not. Raises UsageError where there is none."""
    if not is_there(folder):
        raise UsageError(f"no corpus in {str(folder)!r}; name one with --corpus, or make one with corpusgen run")
    with opened(folder, reading=reading, erasing=erasing) as corpus:
        yield corpus


def is_there(folder: Path) -> bool:
    """Whether there is a corpus, be it one whose journal is gone: opening it says so."""
    return any((folder / name).exists() for name in ("journal.sqlite", "MANIFEST.json", "shards"))


@contextmanager
def existing_or_empty(folder: Path) -> Iterator[Corpus]:
    """The corpus in a folder, or an empty one elsewhere for a moment: looking ahead makes nothing."""
    if is_there(folder):
        with opened(folder, reading=True) as corpus:
            yield corpus
        return
    with TemporaryDirectory() as elsewhere, opened(Path(elsewhere)) as corpus:
        yield corpus


@contextmanager
def corpus_if_any(folder: Path) -> Iterator[Corpus | None]:
    """The corpus in a folder, to be read; None where there is none."""
    if is_there(folder):
        with opened(folder, reading=True) as corpus:
            yield corpus
    else:
        yield None


def emit(value: Any) -> None:
    """One JSON object on stdout."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=str).decode() + "\n")
    sys.stdout.flush()


def tell_error(
    kind: str, message: str, exit_code: int, *, as_json: bool, more: Mapping[str, Any] | None = None
) -> None:
    """Say on stderr what went wrong and, with --json, say it in one JSON object on stdout as well."""
    if as_json:
        emit({**(more or {}), "error": kind, "message": message, "exit_code": exit_code})
    click.echo(f"error: {harmless(message)}", err=True)


def tell_other_models(found: Mapping[str, int]) -> None:
    """Warn of answers that came from another model than the one asked, once for each."""
    for name, number in found.items():
        click.echo(f"warning: {counted(number, 'answer')} came from another model: {harmless(name)}", err=True)


def tell_put_aside(found: Mapping[str, int]) -> None:
    """Warn of answers that are kept and go into no dataset, with why."""
    for why, number in found.items():
        click.echo(f"warning: {counted(number, 'answer')} put aside, in no dataset: {harmless(why)}", err=True)


def harmless(text: str) -> str:
    """Text without characters that steer a terminal; what a server or a seed says ends up in messages."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def counted(number: int, what: str) -> str:
    """So many of something: 1 finding, 2 findings."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def amount(value: int, unit: str) -> str:
    """So much of a unit, by the word a budget uses for it; money and times are stored in millionths."""
    if unit == "usd":
        return money(value)
    return f"{value / 1_000_000:,.2f} s" if unit in ("compute_s", "wall_s") else f"{value:,}"


def plan_told(came_to: Mapping[str, Any]) -> Iterator[str]:
    """How wrong a plan was, a line for each of its figures."""
    for name, one in came_to.items():
        shown = {key: _figure(name, one[key]) for key in ("actual", "low", "high", "likely")}
        place = "within" if one["within"] else "outside"
        off = "" if one["off"] is None else f", {one['off']:+.0%} against {shown['likely']}"
        yield (
            f"  planned   {name.replace('_', ' ')}: {shown['actual']}, {place} {shown['low']} to {shown['high']}{off}"
        )


def _figure(name: str, value: float) -> str:
    if name == "money":
        return money(round(value))
    return f"{value:,.1f} s" if "time" in name else f"{value:,.0f}"


def money(microusd: int) -> str:
    """Micro-dollars as dollars."""
    return f"${microusd / 1_000_000:,.6f}"
