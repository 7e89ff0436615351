"""Whether waivers, reviews and texts in the journal are those that were granted, signed and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.records import Json, canonical_json
from corpusgen.stages.finding import Finding
from corpusgen.stages.lineage.public_keys import KEYS_FOLDER
from corpusgen.stages.terms.files import REVIEW_TYPE


def rights_findings(corpus: Corpus) -> Iterator[Finding]:
    """Everything wrong with what lifts or refreshes a decision; signatures are checked with the ledger."""
    yield from _waivers(corpus)
    yield from _reviews(corpus)
    yield from _texts(corpus)


_log = logging.getLogger("corpusgen.rights")
_TOLD: set[tuple[str, str]] = set()
"""What was warned of already, by the corpus's journal."""


def sound_waivers(corpus: Corpus, rows: Iterable[tuple[str, str]]) -> list[str]:
    """Those of some waivers (id, waiver) that the ledger says were granted and not taken back, in these words."""
    granted, ended = _told_of_waivers(corpus)
    kept = []
    for name, text in rows:
        if name in ended or granted.get(name) != orjson.loads(text):
            _warn(corpus, f"waiver {name}", "is not what the ledger says was granted")
        else:
            kept.append(text)
    return kept


def sound_reviews(corpus: Corpus, rows: Iterable[tuple[int, str, str]]) -> tuple[str, ...]:
    """Those of some reviews (id, review, envelope) that are what one of the corpus's keys has signed."""
    keys = tuple(_keys(corpus))
    kept = []
    for name, text, envelope in rows:
        if _signed(envelope, keys) != canonical_json(orjson.loads(text)):
            _warn(corpus, f"review {name}", "is not what was signed with a key of this corpus")
        else:
            kept.append(text)
    return tuple(kept)


def _keys(corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    """The public keys of a corpus by their ids; what is none, or goes by another's name, is none of them."""
    from corpusgen.provenance.signing import key_id_of, read_public

    for path in sorted((corpus.folder / KEYS_FOLDER).glob("*.pub")):
        try:
            public = read_public(path.name, path.read_bytes())
        except (CorpusDamaged, OSError):
            continue
        if key_id_of(public) == path.stem:
            yield path.stem, public


@lru_cache(maxsize=1024)
def _signed(envelope: str, keys: tuple[tuple[str, bytes], ...]) -> bytes | None:
    """What an envelope holds that one of these keys has signed as a review; None for any other."""
    from corpusgen.provenance.signing import open_envelope

    try:
        payload_type, payload = open_envelope(envelope, dict(keys))
    except CorpusDamaged:
        return None
    return payload if payload_type == REVIEW_TYPE else None


def _warn(corpus: Corpus, name: str, message: str) -> None:
    told = (str(corpus.journal.path), name)
    if told not in _TOLD:
        _TOLD.add(told)
        _log.warning("%s %s, so it does not count; see corpusgen verify", name, message)


def _waivers(corpus: Corpus) -> Iterator[Finding]:
    granted, ended = _told_of_waivers(corpus)
    rows = {
        row[0]: (orjson.loads(row[1]), row[2])
        for row in corpus.journal.query("select waiver_id, waiver, ended_us from waivers")
    }
    for name, (waiver, ended_us) in rows.items():
        if granted.get(name) != waiver:
            yield Finding(check="waivers", subject=name, message="is not what the ledger says was granted")
        elif (name in ended) != (ended_us is not None):
            message = "the ledger says that it was taken back" if name in ended else "nobody took it back"
            yield Finding(check="waivers", subject=name, message=message)
    for name in sorted(granted.keys() - rows.keys()):
        yield Finding(check="waivers", subject=name, message="the ledger says that it was granted, and it is gone")


def _told_of_waivers(corpus: Corpus) -> tuple[dict[str, Json], set[str]]:
    granted: dict[str, Json] = {}
    ended: set[str] = set()
    sql = (
        "select kind, payload from events where kind in ('waiver_granted', 'waiver_ended') and payload is not null"
        " order by seq"
    )
    for kind, text in corpus.journal.query(sql):
        payload = orjson.loads(text)
        if kind == "waiver_granted":
            granted[payload["waiver_id"]] = payload
            ended.discard(payload["waiver_id"])
        else:
            ended.add(payload["waiver_id"])
    return granted, ended


def _reviews(corpus: Corpus) -> Iterator[Finding]:
    for name, review, envelope in corpus.journal.query("select review_id, review, envelope from reviews"):
        if _payload(envelope) != canonical_json(orjson.loads(review)):
            yield Finding(check="reviews", subject=f"review {name}", message="is not what was signed")


def _payload(envelope: str) -> bytes | None:
    """What an envelope holds; None where it is no envelope."""
    from corpusgen.provenance.signing import contents

    try:
        return contents(envelope)[1]
    except CorpusDamaged:
        return None


def _texts(corpus: Corpus) -> Iterator[Finding]:
    for terms_id, sha256, text in corpus.journal.query("select terms_id, sha256, text from snapshots"):
        kept = isinstance(text, bytes) and hashlib.sha256(text).hexdigest() == sha256
        if text is not None and not kept:
            yield Finding(check="snapshots", subject=terms_id, message="its text is not the one that was kept")
