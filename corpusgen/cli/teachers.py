"""``corpusgen teachers``: who can be asked here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from corpusgen.cli.options import corpus_if_any, corpus_option, emit, json_option, opened, parse_budget
from corpusgen.errors import PartialFailure, UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.stages.probing import Probe
    from corpusgen.teacher_fields import TeacherSpec
    from corpusgen.teachers.table import Route


@click.group()
def teachers() -> None:
    """List, add, check and install teachers."""


@teachers.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every teacher that could be named in a spec here, installed or not."""
    from corpusgen.teachers.registry import known_teachers

    offers = known_teachers()
    if as_json:
        emit({"teachers": [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in offers]})
        return
    for one in offers:
        state = "installed" if one.installed else "not installed"
        click.echo(f"{one.name:<28} {one.route:<12} {one.provider:<14} {'free' if one.free else 'priced':<7} {state}")


@teachers.command()
@click.argument("name")
@click.option("--base-url", required=True, help="Address of the server, up to and with /v1.")
@click.option("--provider", required=True, help="Who runs it, as the terms registry spells it.")
@click.option("--route", required=True, type=click.Choice(["api", "aggregator", "cloud", "self_hosted"]))
@click.option(
    "--terms",
    multiple=True,
    required=True,
    metavar="FILE|ID",
    help="Terms it is under: ids, or a .yaml file of documents that is added to your own; may be repeated.",
)
@click.option("--key-env", help="Name of the environment variable that holds the key.")
@corpus_option
@json_option
def add(
    name: str,
    base_url: str,
    provider: str,
    route: Route,
    terms: tuple[str, ...],
    key_env: str | None,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Add an OpenAI-compatible server under a NAME of your own, with its terms; specs then ask NAME/MODEL.

    It is written to the file that CORPUSGEN_TEACHERS names, or to teachers.yaml in corpusgen's settings folder. Its
    terms are pinned: where others bind it as well, it is not asked.
    """
    from corpusgen.corpus import utc_now
    from corpusgen.stages.terms.enrolling import enrol

    with corpus_if_any(corpus_folder) as corpus:
        made = enrol(
            corpus,
            name,
            base_url=base_url,
            provider=provider,
            route=route,
            terms=terms,
            key_env=key_env,
            on=utc_now().date(),
        )
    if as_json:
        emit(made.row.model_dump(mode="json", exclude_defaults=True) | {"file": str(made.file)})
    else:
        pinned = ", ".join(made.row.terms)
        click.echo(f"{made.file}: {made.row.name}/MODEL at {base_url}, under {pinned}. Not legal advice.")


@teachers.command()
@click.argument("name")
@json_option
def install(name: str, as_json: bool) -> None:
    """Install a local teacher's weights and runtime, pinned, and check the weights' digest."""
    from corpusgen.teachers.install import install as fetch

    made = fetch(name.removeprefix("embedded/"))
    if as_json:
        emit({"path": str(made.path), "sha256": made.sha256, "already": made.already})
    else:
        click.echo(f"{'already installed' if made.already else 'installed'}: {made.path}, sha256 {made.sha256}")


@teachers.command()
@click.argument("target", metavar="NAME|SPEC")
@click.option("--live", is_flag=True, help="Ask it up to six short questions. That costs what six short calls cost.")
@click.option("--yes", "agreed", is_flag=True, help="Agree to what --live costs.")
@click.option("--budget", metavar="usd=0.05,requests=5", help="The most that --live may cost.")
@click.option("--base-url", help="Address of the server, for a NAME without one.")
@click.option("--key-env", help="Name of the environment variable that holds the key.")
@click.option("--api", type=click.Choice(["chat", "responses"]), help="How a chat is asked.")
@corpus_option
@json_option
def check(
    target: str,
    live: bool,
    agreed: bool,
    budget: str | None,
    base_url: str | None,
    key_env: str | None,
    api: Literal["chat", "responses"] | None,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Say what a teacher can do, and of a spec's teacher what the terms say. Sends nothing without --live.

    --live asks whether it is so: does it answer, under the model's name, with a count of tokens, within max_tokens; do
    its log-probabilities sum to one at most; do seeds repeat; which trace does it show. In a corpus the calls are
    booked like any other.
    """
    from corpusgen.stages.checking import check_named, check_teacher, probe_named, probe_task
    from corpusgen.stages.loading import load_task

    caps = parse_budget(budget)
    of_spec = target.endswith((".yaml", ".yml")) or Path(target).is_file()
    task = load_task(Path(target)) if of_spec else None
    named = None if task is not None else _named(target, base_url, key_env, api)
    views = (None,) if task is None else task.of_each_teacher
    with corpus_if_any(corpus_folder) as corpus:
        every = [check_named(_sure(named)) if view is None else check_teacher(view, corpus) for view in views]
    probes: list[Probe | None] = [None] * len(every)
    if live:
        with _corpus_here(corpus_folder) as corpus:
            for at, view in enumerate(views):
                if view is None:
                    probes[at] = asyncio.run(probe_named(_sure(named), corpus, agreed=agreed, caps=caps))
                else:
                    probes[at] = asyncio.run(probe_task(view, corpus, agreed=agreed, caps=caps))
    told = [
        found | ({} if probe is None else {"live": _live(probe)}) for found, probe in zip(every, probes, strict=True)
    ]
    if as_json:
        emit(told[0] if len(told) == 1 else {"teachers": told})
    else:
        for found, probe in zip(every, probes, strict=True):
            _tell(found, probe)
    if any(probe is not None and not probe.ok for probe in probes):
        raise click.exceptions.Exit(PartialFailure.exit_code)


def _named(
    name: str, base_url: str | None, key_env: str | None, api: Literal["chat", "responses"] | None
) -> TeacherSpec:
    from pydantic import ValidationError

    from corpusgen.teacher_fields import TeacherSpec

    try:
        return TeacherSpec(name=name, parameters={"max_tokens": 16}, base_url=base_url, key_env=key_env, api=api)
    except ValidationError as error:
        raise UsageError(
            f"{name!r} is neither the file of a task spec nor a teacher's name, such as openai/gpt-4.1"
        ) from error


def _sure(named: TeacherSpec | None) -> TeacherSpec:
    assert named is not None
    return named


@contextmanager
def _corpus_here(folder: Path) -> Iterator[Corpus | None]:
    given = click.get_current_context().get_parameter_source("corpus_folder") is not ParameterSource.DEFAULT
    if given or (folder / "journal.sqlite").exists():
        with opened(folder) as corpus:
            yield corpus
    else:
        yield None


def _live(probe: Probe) -> dict[str, Any]:
    findings = [found.to_json() for found in probe.findings]
    return {"ok": probe.ok, "calls": probe.calls, "microusd": probe.microusd, "findings": findings}


def _tell(found: dict[str, Any], probe: Probe | None) -> None:
    for field, value in found.items():
        shown = "not known" if value is None else value
        click.echo(f"{field:<18} {shown}" if field != "explanation" else f"\n{value}")
    if probe is None:
        return
    bill = "no price is known" if probe.microusd is None else f"for ${probe.microusd / 1e6:.6f}"
    click.echo(f"\nasked {probe.calls} times, {bill}")
    for one in probe.findings:
        click.echo(f"{one.check:<18} {one.outcome:<12} {one.said}")
