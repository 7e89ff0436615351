"""``corpusgen terms``: the documents that bind teachers, one's own among them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import (
    DAY,
    corpus_if_any,
    corpus_option,
    counted,
    emit,
    harmless,
    is_there,
    json_option,
    opened,
    terms_spec_option,
)
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.stages.task import Task

_NOTICE = "Not legal advice."


def _task(spec: Path | None) -> Task | None:
    from corpusgen.stages.loading import load_task

    return None if spec is None else load_task(spec)


@click.group()
def terms() -> None:
    """List, show, add and review terms documents. Not legal advice."""


@terms.command("list")
@click.option("--stale", is_flag=True, help="Only those that should be read again.")
@click.option("--model", help="Only what binds this model, as its provider spells it; with --route.")
@click.option("--provider", default="", help="With --model: whose API or server it is asked at.")
@click.option(
    "--route",
    type=click.Choice(["api", "consumer", "aggregator", "cloud", "self_hosted", "mock"]),
    help="With --model: the road to it.",
)
@click.option("--host", default="", help="With --model: the server's host.")
@corpus_option
@json_option
def list_(
    stale: bool, model: str | None, provider: str, route: Any, host: str, corpus_folder: Path, as_json: bool
) -> None:
    """Every terms document, shipped or your own; with --model those that bind a teacher."""
    from corpusgen.corpus import utc_now
    from corpusgen.provenance.terms import TeacherRoute
    from corpusgen.stages.terms.registering import binding, listed

    if (model is None) != (route is None) or (model is None and (host or provider)):
        raise UsageError("--model and --route go together: terms bind a model by the road to it")
    on = utc_now().date()
    with corpus_if_any(corpus_folder) as corpus:
        found = listed(corpus, on, only_stale=stale)
        bound = None
        if model is not None:
            asked = TeacherRoute(name=model, provider=provider, model=model, route=route, host=host)
            bound = binding(corpus, asked, on)
            found = [one for one in found if one["terms_id"] in bound["terms"]]
    if as_json:
        emit({"terms": found} | ({"binding": bound} if bound is not None else {}))
        return
    for one in found:
        click.echo(_line(one))
    for gap in [] if bound is None else bound["gaps"]:
        click.echo(f"missing: {harmless(gap)}")
    if not found and not (bound and bound["gaps"]):
        click.echo("none")
    click.echo(_NOTICE)


def _line(one: dict[str, Any]) -> str:
    grants = f"{one['outputs_train']}/{one['outputs_train_competing']}"
    marks = [] if one["in_force"] else ["not in force"]
    marks += ["to be read again"] if one["stale"] else []
    marks += ["text held"] if one["text_held"] else []
    marks += [f"from {one['file']}"] if one["file"] else []
    told = f"{one['terms_id']:<44} {grants:<24} {one['confidence']:<7} read {one['reviewed']}"
    return told + (f"  {', '.join(marks)}" if marks else "")


@terms.command()
@click.argument("terms_id")
@terms_spec_option
@corpus_option
@json_option
def show(terms_id: str, spec: Path | None, corpus_folder: Path, as_json: bool) -> None:
    """Everything that is known of one document: values, conditions, duties, quotation, reviews, texts held."""
    from corpusgen.corpus import utc_now
    from corpusgen.stages.terms.registering import shown

    with corpus_if_any(corpus_folder) as corpus:
        found = shown(corpus, terms_id, utc_now().date(), _task(spec))
    if as_json:
        emit(found | {"notice": _NOTICE})
        return
    for name, value in found.items():
        for line in _field(name, value):
            click.echo(harmless(line))
    click.echo(_NOTICE)


def _field(name: str, value: Any) -> Iterator[str]:
    if name == "snapshots" and not value:
        yield f"{name:<24} text not held; corpusgen terms snapshot keeps it"
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield f"{name if at == 0 else '':<24} {_said(one)}"
    elif isinstance(value, dict):
        for at, (key, one) in enumerate(value.items()):
            yield f"{name if at == 0 else '':<24} {key}: {_said(one)}"
    elif value not in (None, "", False):
        yield f"{name:<24} {value}"


def _said(one: Any) -> str:
    if isinstance(one, dict):
        return ", ".join(f"{key}: {value}" for key, value in one.items() if value not in (None, "", []))
    return str(one)


@terms.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--organisation", is_flag=True, help="To your own file for all corpora, not to this corpus.")
@corpus_option
@json_option
def add(file: Path, organisation: bool, corpus_folder: Path, as_json: bool) -> None:
    """Add documents of a terms file, checked, to this corpus or to your own file for all corpora.

    Your own file is the one that CORPUSGEN_TERMS names, or terms.yaml in corpusgen's settings folder. A document that
    stands in for another one says so with overrides. Nothing is changed where anything is wrong.
    """
    from corpusgen.stages.terms.registering import add_terms

    if organisation and not is_there(corpus_folder):
        made = add_terms(None, file, organisation=True)
    else:
        with opened(corpus_folder) as corpus:
            made = add_terms(corpus, file, organisation=organisation)
    names = [*made.documents, *made.licences]
    if as_json:
        told = {"documents": list(made.documents), "licences": list(made.licences), "others": list(made.others)}
        emit({"file": str(made.file), **told})
    elif names or made.others:
        click.echo(f"{made.file}: added {', '.join([*names, *made.others])}. {_NOTICE}")
    else:
        click.echo(f"{made.file}: everything was there already")


@terms.command()
@click.argument("terms_id")
@click.option("--by", required=True, help="Who has read it.")
@click.option("--on", type=DAY, help="The day on which it was read, YYYY-MM-DD; today without it.")
@click.option("--text", type=click.Path(path_type=Path, dir_okay=False), help="The text that was read, as a file.")
@click.option("--remark", default="", help="What the reader wants to say of it.")
@terms_spec_option
@corpus_option
@json_option
def review(
    terms_id: str,
    by: str,
    on: datetime | None,
    text: Path | None,
    remark: str,
    spec: Path | None,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Note, signed, that somebody has read a document again and that what is on file about it still holds."""
    from corpusgen.stages.terms.registering import review as keep

    with opened(corpus_folder) as corpus:
        day = on.date() if on else None
        made = keep(corpus, terms_id, by=by, on=day, text=text, remark=remark, task=_task(spec))
    if made.changed_from is not None:
        _tell_changed(terms_id, made.changed_from, str(made.review["found_text_sha256"]))
    if not made.refreshes:
        click.echo("  this reading refreshes nothing until the new text is kept: corpusgen terms snapshot", err=True)
    if as_json:
        emit(made.review | {"changed_from": made.changed_from, "refreshes": made.refreshes})
    else:
        click.echo(f"{terms_id}: read on {made.review['reviewed']} by {harmless(by)}; signed and kept. {_NOTICE}")


def _tell_changed(terms_id: str, before: str, now: str) -> None:
    click.echo(f"WARNING: THE TEXT OF {terms_id} HAS CHANGED since it was last on file", err=True)
    click.echo(f"  before sha256 {before}\n  now    sha256 {now}", err=True)
    click.echo("  compare them; a new version is a document of its own: corpusgen terms add", err=True)


@terms.command()
@click.argument("terms_id")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@terms_spec_option
@corpus_option
@json_option
def snapshot(terms_id: str, file: Path, spec: Path | None, corpus_folder: Path, as_json: bool) -> None:
    """Keep a document's text in this corpus; until then audits answer "text not held"."""
    from corpusgen.stages.terms.registering import snapshot as keep

    with opened(corpus_folder) as corpus:
        made = keep(corpus, terms_id, file, _task(spec))
    if made.changed_from is not None:
        _tell_changed(terms_id, made.changed_from, made.sha256)
    if as_json:
        emit({name: getattr(made, name) for name in made.__dataclass_fields__})
    else:
        click.echo(f"{made.terms_id}: {counted(made.size_bytes, 'byte')} kept, sha256 {made.sha256}")


@terms.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@corpus_option
@json_option
def lint(file: Path | None, corpus_folder: Path, as_json: bool) -> None:
    """Check a terms file, or all that count here: every mistake at once, each with its line."""
    from corpusgen.corpus import utc_now
    from corpusgen.provenance.terms import stale
    from corpusgen.stages.terms.registering import lint as check

    with corpus_if_any(corpus_folder) as corpus:
        registry = check(corpus, file)
    old = stale(registry, utc_now().date())
    if as_json:
        emit({"documents": len(registry.documents), "stale": [one.terms_id for one in old], "digest": registry.digest})
        return
    click.echo(f"{counted(len(registry.documents), 'document')}, no mistake; {len(old)} to be read again")
