"""The public keys that a corpus publishes, by which anybody can check what was signed in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged

if TYPE_CHECKING:  # who only asks where the keys are does without cryptography
    from corpusgen.provenance.ledger import LedgerProblem

KEYS_FOLDER = "keys"
"""Public keys of everybody who has signed something in a corpus."""


def published_keys(corpus: Corpus, problems: list[LedgerProblem]) -> dict[str, bytes]:
    """The public keys in ``keys/`` by their ids; what is wrong with one goes to ``problems``."""
    from corpusgen.provenance.ledger import LedgerProblem
    from corpusgen.provenance.signing import key_id_of, read_public

    keys = {}
    for path in sorted((corpus.folder / KEYS_FOLDER).glob("*.pub")):
        name = f"{KEYS_FOLDER}/{path.name}"
        try:
            public = read_public(name, path.read_bytes())
        except (CorpusDamaged, OSError) as error:
            problems.append(LedgerProblem(subject=name, message=str(error)))
            continue
        if key_id_of(public) != path.stem:
            message = f"was swapped: it holds key {key_id_of(public)}, not the one it is named after"
            problems.append(LedgerProblem(subject=name, message=message))
        else:
            keys[path.stem] = public
    return keys
