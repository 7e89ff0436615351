"""Released: what went out under which name, as far as the journal says what was signed and the ledger tells of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.provenance.signing import open_envelope
from corpusgen.records import Json, canonical_json
from corpusgen.stages.lineage.public_keys import published_keys

RELEASE_TYPE: Final = "application/vnd.corpusgen.release+json"
TOLD: Final = ("release_id", "student_id", "name", "approver", "datasets", "base", "waivers", "policy_digest", "files")
"""What the ledger says of a release."""
_log = logging.getLogger("corpusgen.rights")


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A release as it was signed, and its withdrawal."""

    said: dict[str, Json]
    envelope: str
    withdrawn: Mapping[str, Json] | None

    def to_json(self) -> dict[str, Json]:
        """The release, with when, by whom and why it was withdrawn."""
        return self.said | ({} if self.withdrawn is None else {"withdrawn": dict(self.withdrawn)})


def noted_releases(corpus: Corpus) -> list[Noted]:
    """Every release, oldest first; a row that is not what was signed is warned of and left out."""
    found = []
    for name, one in _rows(corpus):
        if one is None:
            _log.warning("release %s is not what was signed here, so it does not count; see corpusgen verify", name)
        else:
            found.append(one)
    return found


def noted_release(corpus: Corpus, release_id: str) -> Noted | None:
    """The release of that id, if there is one. Raises CorpusDamaged where its row is not what was signed."""
    for name, one in _rows(corpus):
        if name == release_id and one is None:
            raise CorpusDamaged(f"release {name}: its row is not what was signed here; see corpusgen verify")
        if name == release_id:
            return one
    return None


def _rows(corpus: Corpus) -> list[tuple[str, Noted | None]]:
    rows = corpus.journal.query("select release_id, release, envelope from releases order by released_us, release_id")
    if not rows:
        return []
    keys = published_keys(corpus, [])
    told, taken_back = _told(corpus, "released"), _told(corpus, "withdrawn")
    return [(str(name), _noted(text, envelope, keys, told, taken_back)) for name, text, envelope in rows]


def _noted(
    text: str,
    envelope: str,
    keys: Mapping[str, bytes],
    told: Mapping[str, Mapping[str, Json]],
    taken_back: Mapping[str, Mapping[str, Json]],
) -> Noted | None:
    """The release that a row is; None where no key of the corpus signed just that, or no event tells of it."""
    try:
        said = orjson.loads(text)
        withdrawn = said.pop("withdrawn", None)
        payload_type, payload = open_envelope(envelope, keys)
        event = told[said["release_id"]]
        alike = all(event.get(name) == said.get(name) for name in TOLD)
    except (CorpusDamaged, ValueError, KeyError, TypeError, AttributeError):
        return None
    if payload_type != RELEASE_TYPE or payload != canonical_json(said) or not alike:
        return None
    # The row's word about a withdrawal is not signed; who takes it out does not bring a release back.
    gone = taken_back.get(said["release_id"], withdrawn)
    kept = gone and {name: gone[name] for name in ("by", "reason", "withdrawn_time")}
    return Noted(said=said, envelope=envelope, withdrawn=kept)


def _told(corpus: Corpus, kind: str) -> dict[str, Mapping[str, Json]]:
    rows = corpus.journal.query(
        "select payload from events where kind = ? and payload is not null order by seq", (kind,)
    )
    return {payload["release_id"]: payload for (text,) in rows for payload in [orjson.loads(text)]}
