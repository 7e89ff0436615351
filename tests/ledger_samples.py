"""A corpus with a sealed dataset and a student, whose ledger can be spoiled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.provenance.events import CHECKPOINT_TYPE
from corpusgen.provenance.merkle import MerkleTree
from corpusgen.provenance.signing import KEY_VARIABLE, Signer, signing_key
from corpusgen.records import canonical_json
from corpusgen.stages.lineage.ledger_checks import events_of
from corpusgen.stages.loading import load_task


def distilled(folder: Path) -> Path:
    """The folder of a corpus in which the main job has run."""
    with Corpus.open(folder / "corpus") as corpus:
        asyncio.run(distill(Distillation(task=load_task(write_label_task(folder)), corpus=corpus)))
    return folder / "corpus"


def change(corpus: Corpus, *statements: str | tuple[str, Sequence[Any]]) -> None:
    """Do to the journal what somebody who can write to the disk can do."""
    connection = apsw.Connection(str(corpus.folder / "journal.sqlite"))
    for statement in statements:
        connection.execute(*((statement,) if isinstance(statement, str) else statement))
    connection.close()


def key_in(folder: Path) -> Signer:
    """Somebody's key."""
    return signing_key({KEY_VARIABLE: str(folder / "signing.pem")})


def own_key() -> Signer:
    """The key that the tests sign with."""
    return signing_key(os.environ)


def sign_again(corpus: Corpus, signer: Signer) -> None:
    """All checkpoints as somebody with that key would write them for the events there are."""
    name = corpus.journal.query("select value from meta where name = 'corpus_id'")[0][0]
    sizes = [row[0] for row in corpus.journal.query("select size from checkpoints")]
    for size in sizes:
        tree = MerkleTree()
        for event in list(events_of(corpus))[:size]:
            tree.add(event.leaf)
        said = {"corpus_id": name, "root": tree.root, "signed_time": "2026-11-01T00:00:00+00:00", "size": size}
        values = (bytes.fromhex(tree.root), tree.peaks, signer.sign(CHECKPOINT_TYPE, canonical_json(said)), size)
        change(corpus, ("update checkpoints set root = ?, peaks = ?, envelope = ? where size = ?", values))
