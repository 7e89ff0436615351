"""``corpusgen teachers``: who can be asked here."""

from __future__ import annotations

from pathlib import Path

import click

from corpusgen.cli.options import emit, json_option


@click.group()
def teachers() -> None:
    """List, check and install teachers."""


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
@click.argument("spec", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(spec: Path, as_json: bool) -> None:
    """Say what the teacher of a spec can do, and what the terms say of asking it. Sends nothing."""
    from corpusgen.stages.checking import check_teacher
    from corpusgen.stages.task import load_task

    found = check_teacher(load_task(spec))
    if as_json:
        emit(found)
        return
    for field, value in found.items():
        shown = "not known" if value is None else value
        click.echo(f"{field:<18} {shown}" if field != "explanation" else f"\n{value}")
