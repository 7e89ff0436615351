"""``corpusgen tokens create``, ``list`` and ``revoke``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, emit, existing, harmless, json_option, opened, parse_budget

if TYPE_CHECKING:
    from corpusgen.fields import Per
    from corpusgen.serve.tokens import Token

USES = ("internal", "hosted", "weights_released")


@click.group()
def tokens() -> None:
    """Who may use the service, for what, until when, and with how much money.

    A token's secret is shown once, when it is made; the corpus keeps only its digest. Once there is a token, nobody
    comes in without one.
    """


@tokens.command()
@click.argument("name")
@click.option("--user", required=True, metavar="NAME", help="In whose name it asks; caps on users count it.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    metavar="ask,lend,read,legal,admin",
    help="ask: have teachers asked; lend: another machine of yours that asks teachers itself, believed in what it"
    " reports; read: see records and money; legal: rights; admin: all, budgets and tokens.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it holds.")
@click.option("--task", metavar="NAME", help="What it asks is recorded under this task, whatever a client says.")
@click.option("--use", type=click.Choice(USES), help="The intended use of what it asks.")
@click.option("--budget", metavar="usd=5,tokens=1e6,requests=1000", help="Caps of this token alone.")
@click.option("--per", type=click.Choice(["total", "day", "month"]), default="total", show_default=True)
@click.option("--may-name-users", is_flag=True, help="It may say in whose name it asks (x-corpusgen-user).")
@corpus_option
@json_option
def create(
    name: str,
    user: str,
    scopes: str,
    days: int,
    task: str | None,
    use: str | None,
    budget: str | None,
    per: Per,
    may_name_users: bool,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Make a token called NAME and print its secret on stdout: once, so keep it where keys are kept."""
    from corpusgen.serve.tokens import Wish, scopes_in
    from corpusgen.serve.tokens import create as made

    wish = Wish(
        name=name,
        user=user,
        scopes=scopes_in(scopes),
        days=days,
        task=task,
        intended_use=None if use is None else {"student_distribution": use},
        may_name_users=may_name_users,
        caps=parse_budget(budget),
        per=per,
    )
    with opened(corpus_folder) as corpus:
        token, secret = made(corpus, wish, by=corpus.actor)
    if as_json:
        emit({**_told(token), "secret": secret})
        return
    click.echo(f"{_line(token)}\nkeep the secret, it is shown only now; send it as Authorization: Bearer", err=True)
    click.echo(secret)


@tokens.command(name="list")
@corpus_option
@json_option
def list_(corpus_folder: Path, as_json: bool) -> None:
    """Every token: whose it is, what it may do, until when, and when it was used last."""
    from corpusgen.serve.tokens import listed

    with existing(corpus_folder, reading=True) as corpus:
        now, found = corpus.clock(), listed(corpus)
    if as_json:
        emit({"tokens": [{**_told(token), "state": token.state(now)} for token in found]})
        return
    for token in found:
        click.echo(f"{token.state(now):<8} {_line(token)}")
    if not found:
        click.echo("no tokens; whoever is on this machine may use the service")


@tokens.command()
@click.argument("which", metavar="ID|NAME")
@corpus_option
@json_option
def revoke(which: str, corpus_folder: Path, as_json: bool) -> None:
    """Let a token be worth nothing; a running service hears of it within a second."""
    from corpusgen.serve.tokens import revoke as revoked

    with existing(corpus_folder) as corpus:
        token = revoked(corpus, which, by=corpus.actor)
    if as_json:
        emit(_told(token))
        return
    click.echo(f"revoked  {_line(token)}")


def _told(token: Token) -> dict[str, Any]:
    times = {name: getattr(token, name) for name in ("created", "expires", "revoked", "used")}
    return {
        "token_id": token.token_id,
        "name": token.name,
        "user": token.user,
        "scopes": list(token.scopes),
        "task": token.task,
        "use": token.intended_use,
        "may_name_users": token.may_name_users,
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
    }


def _line(token: Token) -> str:
    until = "for ever" if token.expires is None else f"until {token.expires:%Y-%m-%d}"
    used = "never used" if token.used is None else f"used {token.used:%Y-%m-%d %H:%M}"
    task = f", task {token.task}" if token.task else ""
    return harmless(
        f"{token.token_id}  {token.name}  user {token.user}  {','.join(token.scopes)}  {until}, {used}{task}"
    )
