"""``corpusgen prove`` and ``checkpoint``: what others can check without the corpus."""

from __future__ import annotations

from pathlib import Path

import click

from corpusgen.cli.options import corpus_option, counted, emit, existing, json_option


@click.command()
@click.argument("record")
@click.option("--dataset", metavar="NAME-V", help="A sealed dataset; else the newest that has the record.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the proof; else stdout.")
@corpus_option
@json_option
def prove(record: str, dataset: str | None, out: Path | None, corpus_folder: Path, as_json: bool) -> None:
    """Prove that RECORD is in a sealed dataset: a JSON file that others check without corpusgen.

    The proof holds the record itself. It is checked with python check_proof.py PROOF KEY.pub, a script in
    corpusgen/provenance that needs nothing else of corpusgen.
    """
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.lineage.proving import prove as make_proof

        made = make_proof(corpus, record, dataset)
    if out is None:
        emit(made.document)
        return
    from corpusgen.provenance import check_proof
    from corpusgen.records import canonical_json
    from corpusgen.store.durable import write_file

    write_file(out, canonical_json(made.document) + b"\n")
    key_id, script = made.checkpoint.key_id, check_proof.__file__
    if as_json:
        hashes = dict(zip(("dataset", "ledger"), made.hashes, strict=True))
        told = {"record_id": made.record_id, "dataset": made.dataset, "hashes": hashes, "key_id": key_id}
        emit({"out": str(out), "script": script, **told})
        return
    click.echo(f"{out}: record {made.record_id} is in {made.dataset} ({sum(made.hashes)} hashes)")
    click.echo(f"anybody checks it with: python {script} {out} {key_id}.pub")


@click.command()
@click.option(
    "--export", "out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="The ledger too."
)
@corpus_option
@json_option
def checkpoint(out: Path | None, corpus_folder: Path, as_json: bool) -> None:
    """Sign the ledger as it is now, and print what to keep elsewhere.

    With --export, write the ledger without what its events say: hashes and checkpoints, for somebody who keeps or
    checks them (corpusgen verify --events FILE).
    """
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.lineage.attesting import checkpoint as sign

        made = sign(corpus)
        events = None
        if out is not None:
            from corpusgen.stages.lineage.ledger_checks import export_events

            events = export_events(corpus, out)
    if as_json:
        told = {"corpus_id": made.corpus_id, "size": made.size, "root": made.root, "key_id": made.key_id}
        more = {"signed_time": made.signed_time, "envelope": made.envelope}
        emit({**told, **more, **({"exported": str(out), "events": events} if out else {})})
        return
    click.echo(f"corpus {made.corpus_id}: {counted(made.size, 'event')}, root {made.root}")
    click.echo(f"signed {made.signed_time:%Y-%m-%d %H:%M:%S} UTC with key {made.key_id}")
    if out is not None:
        click.echo(f"{out}: {counted(events or 0, 'event')}")
    click.echo("To be kept elsewhere, where nobody who can write to the corpus can change it:")
    click.echo(made.envelope)
