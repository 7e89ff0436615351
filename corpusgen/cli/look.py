"""``corpusgen status`` and ``corpusgen query``: looking at a corpus."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import amount, corpus_option, counted, emit, existing, harmless, json_option, money

if TYPE_CHECKING:
    from corpusgen.store.query import QueryResult


@click.command()
@corpus_option
@json_option
def status(corpus_folder: Path, as_json: bool) -> None:
    """Money (settled, promised, unconfirmed), runs, calls under way, drops with their reasons, datasets."""
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.looking import corpus_status

        found = corpus_status(corpus)
    if as_json:
        emit(found)
        return
    click.echo(f"corpus {found['corpus']}: {counted(found['records'], 'record')}, {counted(found['shards'], 'shard')}")
    for one in found["balances"]:
        click.echo(balance_line(one))
    for one in found["runs"]:
        lacking = f", {one['unanswered']:,} without an answer" if one["unanswered"] else ""
        click.echo(f"  run {one['run_id']} of {one['task']}: {one['status']}{lacking}, started {one['started']}")
    for one in found["batches"]:
        click.echo(_batch_line(one))
    for one in found["teachers"] if len(found["teachers"]) > 1 else ():
        told = f"{counted(one['calls'], 'call')}, {counted(one['answers'], 'answer')}, {money(one['microusd'])}"
        click.echo(f"  teacher {one['teacher']} ({one['role']}): {told}")
    for line in _model_lines(found["models"]):
        click.echo(line)
    for one in found["drops"]:
        click.echo(_drop_line(one))
    for one in found["datasets"]:
        click.echo(f"  dataset {one['dataset']}: {one['status']}, {one['rows']} rows")
    for one in found["students"]:
        click.echo(f"  student {one['student_id']} of {one['dataset']}")
    for one in found["erasures"]:
        click.echo(harmless(_erasure_line(one)))


def _erasure_line(one: Mapping[str, Any]) -> str:
    if one["unfinished"]:
        return f"  erasure {one['erasure_id']} is unfinished; corpusgen erase brings it to its end"
    revoked = f", revoked {', '.join(one['revoked'])}" if one["revoked"] else ""
    retrain = f", students to retrain or retire: {', '.join(one['retrain'])}" if one["retrain"] else ""
    took = f"took out {counted(one['records'], 'record')} by {one['selector']}"
    return f"  erasure {one['erasure_id']} of {one['erased']} by {one['by']} {took}{revoked}{retrain}"


def _model_lines(models: list[Mapping[str, Any]] | None) -> Iterator[str]:
    """Who answered instead of the model that was asked."""
    if models is None:
        yield "  who answered cannot be told: a shard cannot be read; corpusgen verify says which"
    for one in models or ():
        if one["another"]:
            told = f"{counted(one['records'], 'record')} of {one['teacher']} came from another model"
            yield f"  {told}: {shorten(harmless(one['served']), 200)}"
        if one["aside"]:
            told = f"{counted(one['aside'], 'record')} of {one['teacher']} put aside"
            yield f"  {told}, in no dataset: nobody checked the terms of {shorten(harmless(one['served']), 200)}"


def _drop_line(one: Mapping[str, Any]) -> str:
    if one["stage"].startswith("passed on by "):
        return f"  {one['items']} {one['stage']}: {one['reason']}"
    said = "".join(f"\n    {shorten(harmless(detail), 200)}" for detail in one["details"])
    return f"  dropped {one['items']} at {one['stage']}: {one['reason']}{said}"


def _batch_line(one: Mapping[str, Any]) -> str:
    where = one["provider_batch_id"] or "not known to have arrived, looked for at the next start"
    heard = f"{one['provider_state']}, {one['answered']} answered" if one["provider_state"] else one["state"]
    return (
        f"  batch {one['batch_id']} ({where}): {heard} of {one['requests']}, since {one['since']},"
        f" {money(one['promised_microusd'])} promised; corpusgen run collects it"
    )


def balance_line(one: Mapping[str, Any]) -> str:
    """What one scope has used of one unit: settled, promised and unconfirmed apart."""
    settled, promised, unconfirmed = (amount(one[name], one["unit"]) for name in ("settled", "promised", "unconfirmed"))
    cap = "no cap" if one["cap"] is None else f"cap {amount(one['cap'], one['unit'])} ({one['origin']})"
    figures = f"settled {settled}, promised {promised}, unconfirmed {unconfirmed}"
    if one["leased"]:
        figures += f", {amount(one['leased'], one['unit'])} of the promised only leased so far"
    if one["worth_microusd"] is not None:
        figures += f", worth {money(one['worth_microusd'])} that nobody bills"
    return f"  {one['scope']:<44} {one['unit']:<9} {figures}, {cap}"


@click.command()
@click.argument("sql", required=False)
@corpus_option
@click.option(
    "--schema",
    "described",
    metavar="[TABLE]",
    is_flag=False,
    flag_value="",
    help="Say what the tables and their columns mean, all or one; ask nothing.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "jsonl", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="parquet needs --out.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file, not to stdout.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Time limit.")
@click.option("--memory-mb", type=click.IntRange(min=256), default=2048, show_default=True, help="Memory limit.")
@json_option
def query(
    sql: str | None,
    corpus_folder: Path,
    described: str | None,
    kind: str,
    out: Path | None,
    seconds: float,
    memory_mb: int,
    as_json: bool,
) -> None:
    """Answer one SQL question about the corpus.

    Tables: records, runs, calls, balances, batches, reconciliations, drops, remarks, findings, decisions, shards,
    datasets, students, and the lineage: terms, sources, record_requests, v_touch …; --schema says what is in each. The
    question runs in a process of its own over a copy in memory, so no statement can harm the corpus.
    """
    if described is not None:
        _describe(described, sql, as_json=as_json)
        return
    if sql is None:
        raise click.UsageError("give a question in SQL, or --schema to see what can be asked")
    if as_json and (kind not in ("table", "json") or out is not None):
        raise click.UsageError("--json prints one object: leave --format and --out out, or --json")
    if kind == "parquet" and out is None:
        raise click.UsageError("--format parquet needs --out FILE")
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.sql import ask_sql
        from corpusgen.store.query import QueryLimits

        result = ask_sql(corpus, sql, QueryLimits(seconds=seconds, memory_mb=memory_mb))
    if result.truncated and not as_json:
        click.echo(f"note: cut off after {len(result.table):,} rows; ask for fewer", err=True)
    _show(result, kind, out, as_json=as_json)


def _describe(table: str, sql: str | None, *, as_json: bool) -> None:
    if sql is not None:
        raise click.UsageError("--schema asks nothing: leave the question out, or --schema TABLE")
    from corpusgen.stages.lineage.guide import guide_json, guide_lines

    if as_json:
        emit(guide_json(table or None))
    else:
        click.echo("\n".join(guide_lines(table or None)))


def _show(result: QueryResult, kind: str, out: Path | None, *, as_json: bool) -> None:
    from corpusgen.store.durable import write_file
    from corpusgen.store.tabulate import tabulate, write_parquet

    if kind == "parquet" and out is not None:
        write_parquet(result, out)
    elif out is not None:
        write_file(out, tabulate(result, kind).encode())  # type: ignore[arg-type] # click has checked the word
    elif as_json:
        rows = [json.loads(line) for line in tabulate(result, "jsonl").splitlines()]
        emit({"columns": list(result.columns), "rows": rows, "truncated": result.truncated})
    else:
        sys.stdout.write(tabulate(result, kind))  # type: ignore[arg-type] # click has checked the word
