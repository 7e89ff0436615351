"""``corpusgen release``: a student goes out under a name, approved by somebody, with what its terms ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from corpusgen.cli.options import corpus_option, emit, existing, harmless, json_option
from corpusgen.errors import UsageError


@click.command()
@click.argument("student", required=False)
@click.option("--name", help="What the released student is called; some terms ask for a word in front.")
@click.option("--approver", metavar="WHO", help="The person who answers for the release.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to make; else in the corpus.")
@click.option("--dataset", "datasets", multiple=True, help="What a student made elsewhere learned from; repeatable.")
@click.option("--base", metavar="MODEL", help="Weights it began with, as their publisher spells them.")
@click.option("--base-provider", metavar="P", help="Who published them, as the terms registry spells it.")
@click.option("--base-weights-sha256", metavar="SHA256", help="Digest of those weights.")
@click.option("--accept", multiple=True, metavar="DUTY", help="A duty that will be carried out; repeatable.")
@click.option(
    "--spec",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Spec whose intended use and terms_files count in place of what the runs were made for.",
)
@click.option("--list", "listing", is_flag=True, help="Show every release.")
@click.option("--withdraw", metavar="ID", help="Withdraw a release; with --by and --reason.")
@click.option("--by", metavar="WHO", help="With --withdraw: who withdraws it.")
@click.option("--reason", help="With --withdraw: why.")
@corpus_option
@json_option
def release(
    student: str | None,
    corpus_folder: Path,
    listing: bool,
    withdraw: str | None,
    by: str | None,
    reason: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Release a student: judged by today's terms in all it touched, signed, with notices and licence texts.

    STUDENT is the id of a student of the corpus, or the folder of one that was made elsewhere from sealed datasets
    (--dataset). Refused with rule and clause (exit 4) where terms, waivers, its name or what goes along do not allow
    it. Not legal advice.
    """
    if (by is not None or reason is not None) and withdraw is None:
        raise UsageError("--by and --reason are for --withdraw")
    if sum((student is not None, listing, withdraw is not None)) != 1:
        raise UsageError("name a STUDENT to release, or give --list, or --withdraw ID; one of them")
    if student is None and any(asked.values()):
        raise UsageError("--name, --approver and the like are for a STUDENT to release")
    if listing:
        _list(corpus_folder, as_json=as_json)
    elif withdraw is not None:
        _withdraw(corpus_folder, withdraw, by or "", reason or "", as_json=as_json)
    else:
        _release(corpus_folder, student or "", asked, as_json=as_json)


def _release(corpus_folder: Path, student: str, asked: dict[str, Any], *, as_json: bool) -> None:
    for name in ("name", "approver"):
        if asked[name] is None:
            raise UsageError(f"--{name} is missing: a release has a name, and a person who answers for it")
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.loading import load_task
        from corpusgen.stages.release.candidates import Wanted, base_of
        from corpusgen.stages.release.releasing import release as make_release

        spec, base = asked["spec"], (asked["base"], asked["base_provider"], asked["base_weights_sha256"])
        wanted = Wanted(
            student=student,
            name=asked["name"],
            approver=asked["approver"],
            out=asked["out"],
            datasets=asked["datasets"],
            base=base_of(*base),
            accept=asked["accept"],
            task=None if spec is None else load_task(spec),
        )
        made = make_release(corpus, wanted)
    if as_json:
        emit({"folder": str(made.folder), "found": made.found, **made.release})
        return
    said = made.release
    again = " (released before, just like this)" if made.found else ""
    click.echo(f"{made.folder}: {said['name']}, release {said['release_id']}, approved by {said['approver']}{again}")
    for duty in said["duties"]:
        click.echo(f"  duty {duty['kind']} on the {duty['applies_to']}: {harmless(duty['text'])} [{duty['terms_id']}]")
    click.echo("Not legal advice.")


def _list(corpus_folder: Path, *, as_json: bool) -> None:
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.release.releasing import releases

        found = releases(corpus)
    if as_json:
        emit({"releases": found})
        return
    for one in found:
        click.echo(f"{one['release_id']}  {one['released_time'][:10]}  {one['name']}  by {one['approver']}{_gone(one)}")
    if not found:
        click.echo("nothing was released from this corpus")


def _gone(release_: dict[str, Any]) -> str:
    gone = release_.get("withdrawn")
    return "" if gone is None else f"  withdrawn {gone['withdrawn_time'][:10]} by {gone['by']}: {gone['reason']}"


def _withdraw(corpus_folder: Path, release_id: str, by: str, reason: str, *, as_json: bool) -> None:
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.release.releasing import withdraw

        said = withdraw(corpus, release_id, by=by, reason=reason)
    if as_json:
        emit(said)
    else:
        click.echo(
            f"{said['name']}, release {said['release_id']}, is withdrawn; copies that others have stay with them"
        )
