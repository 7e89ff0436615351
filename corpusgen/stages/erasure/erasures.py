"""What is known of erasures: which names are not asked about again, what was revoked by whom, what is unfinished.

A tombstone is a keyed hash of an item's *name* (``source#id``), never of a text or of anything that follows from one:
whoever holds the corpus can find out whether a name he already has was erased, which is what a run must do, and
nothing of what stood there. A caller of the service names nothing, so what is kept of his question is a keyed hash of
its request: whoever asked the very same would get the very same record back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, SealRefused
from corpusgen.records import Json, canonical_json
from corpusgen.stages.lineage.public_keys import published_keys

if TYPE_CHECKING:
    from corpusgen.journal import Journal, Operation, Transaction
    from corpusgen.prompting.prompts import Prompt
    from corpusgen.prompting.seeds import Seed

STAGE: Final = "erased"
"""Stage and reason of a drop: a seed file still names what was erased."""
SALT: Final = "erased_salt"
TOLD: Final = "the seed file still names what was erased; remove it there"


@dataclass(frozen=True, kw_only=True)
class Tombstones:
    """The names that were erased, as keyed hashes."""

    salt: bytes
    marks: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.marks)

    @classmethod
    def of(cls, journal: Journal) -> Tombstones:
        """Those of a corpus; reading none costs one statement."""
        return cls.read(journal.query)

    @classmethod
    def read(cls, rows_of: Callable[[str], list[tuple[Any, ...]]]) -> Tombstones:
        """Those that a query finds, such as one inside a transaction."""
        rows = rows_of("select mark from erased")
        if not rows:
            return cls(salt=b"", marks=frozenset())
        ((salt,),) = rows_of(f"select value from meta where name = '{SALT}'")  # noqa: S608 - own name
        return cls(salt=bytes.fromhex(salt), marks=frozenset(row[0] for row in rows))

    def mark_of(self, name: str) -> bytes | None:
        """The tombstone over an item, ``source#id``, or over its whole source; None where there is none."""
        for one in (name, name.partition("#")[0]):
            if (found := mark(self.salt, one)) in self.marks:
                return found
        return None

    def over_request(self, key: bytes) -> bytes | None:
        """The tombstone over a request that a caller of the service had made."""
        return found if self.marks and (found := mark(self.salt, of_request(key))) in self.marks else None

    def over(self, task: str, prompt: Prompt) -> bytes | None:
        """The tombstone over what a prompt asks: its item, this very sample of it, or a request of a caller."""
        names, first = prompt.item.source_ids, prompt.request.sample_index
        whole = (self.mark_of(name) for name in names)  # the worked examples' too: the prompt shows them
        places = ((name, at) for name in names[:1] for at in range(first, first + prompt.count))
        samples = (mark(self.salt, of_sample(task, name, at)) for name, at in places)
        found = (one for one in whole if one is not None)
        of_item = next(found, None) or next((one for one in samples if one in self.marks), None)
        return of_item or self.over_request(prompt.request.key)


def mark(salt: bytes, name: str) -> bytes:
    """What is kept of a name."""
    return hmac.digest(salt, name.encode("utf-8", "surrogatepass"), hashlib.sha256)


def of_sample(task: str, name: str, sample: int) -> str:
    """The name of one sample of an item, where others of it stay."""
    return f"{task}\n{name}\n{sample}"


def of_request(key: bytes) -> str:
    """The name of a request that came from a caller, whoever that was."""
    return f"request\n{key.hex()}"


@dataclass(kw_only=True)
class Sifter:
    """Lets prompts through that may be asked, and remembers the others."""

    tombstones: Tombstones
    task: str
    dropped: set[tuple[str, bytes]] = field(default_factory=set)
    """Split and tombstone of what was not let through."""

    def through(self, prompts: Iterable[Prompt]) -> Iterator[Prompt]:
        """The prompts without those about what was erased."""
        for prompt in prompts:
            found = self.tombstones.over(self.task, prompt)
            if found is None:
                yield prompt
            else:
                self.dropped.add((prompt.item.split, found))


def dropping(run_id: str, dropped: Iterable[tuple[str, bytes]], *, anew: bool = False) -> Operation[None]:
    """Notes what was not asked because it was erased; an item is told by its tombstone, not by its name.

    With ``anew`` what was noted of the pool before is forgotten: the seed file may have been mended since.
    """
    rows = [(run_id, STAGE, f"{split}!{found.hex()[:16]}", STAGE, TOLD) for split, found in sorted(dropped)]
    sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"

    def operation(transaction: Transaction) -> None:
        if anew:
            transaction.execute(
                "delete from drops where run_id = ? and stage = ? and item_id glob 'train!*'", (run_id, STAGE)
            )
        transaction.connection.executemany(sql, rows)

    return operation


def without_erased(
    journal: Journal, run_id: str | None, seeds: Iterable[Seed], by_check: Counter[str]
) -> Iterator[Seed]:
    """The items of a pool that were not erased; the others are counted, and noted where there is a run."""
    tombstones, dropped = Tombstones.of(journal), set[tuple[str, bytes]]()
    for seed in seeds:
        found = tombstones.mark_of(f"{seed.source}#{seed.item_id}") if tombstones else None
        if found is None:
            yield seed
        else:
            dropped.add(("train", found))
            by_check[STAGE] += 1
    if tombstones and run_id is not None:
        journal.run_now(dropping(run_id, dropped, anew=True))


# --- erasures and what they revoked -----------------------------------------------------------------------------------


def erasures(corpus: Corpus) -> list[dict[str, Json]]:
    """Every erasure of a corpus, the first one first; one that is not finished has a field ``unfinished``.

    Raises CorpusDamaged for one that is not what was signed: what it says of students must hold.
    """
    found = []
    for fields, envelope in _rows(corpus):
        if envelope or "unfinished" not in fields:
            _refuse_changed(fields, envelope)
        found.append(fields)
    return found


def _rows(corpus: Corpus) -> list[tuple[dict[str, Json], str]]:
    rows = corpus.journal.query("select erasure, envelope from erasures order by erasure_id")
    return [(orjson.loads(text), envelope) for text, envelope in rows]


def _refuse_changed(fields: Mapping[str, Json], envelope: str) -> None:
    try:
        said = base64.b64decode(orjson.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError):
        said = b""
    if said != canonical_json(dict(fields)):
        raise CorpusDamaged(
            f"erasure {fields.get('erasure_id')} is not what was signed: it was changed in the journal; see corpusgen"
            " verify, and restore the corpus from a backup"
        )


def _signed_erasures(corpus: Corpus) -> list[dict[str, Json]]:
    """Every erasure, with signatures checked and none of those missing that the ledger tells of."""
    found = erasures(corpus)
    told = corpus.journal.query("select payload from events where kind = 'erased' and payload is not null order by seq")
    payloads = [orjson.loads(text) for (text,) in told]
    there = {one["erasure_id"] for one in found}
    for one in payloads:
        if "erasure_id" in one and one["erasure_id"] not in there:
            raise CorpusDamaged(
                f"erasure {one['erasure_id']} is in the ledger, and its report is gone; see corpusgen verify"
            )
    if signed := [envelope for _, envelope in _rows(corpus) if envelope]:
        from corpusgen.provenance.signing import open_envelope

        keys = published_keys(corpus, [])
        for envelope in signed:
            open_envelope(envelope, keys)
    # Between the cut and its report, only the event is whole.
    return found + [one for one in payloads if "students" in one and "erasure_id" in one]


def unfinished(corpus: Corpus) -> dict[str, Json] | None:
    """The erasure that was begun and has not come to its end."""
    return next((fields for fields, _ in _rows(corpus) if "unfinished" in fields), None)


def revocation(fields: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """What a dataset's row says of its revocation."""
    found: Mapping[str, Json] | None = fields.get("revoked")
    return found


def revoked_versions(corpus: Corpus) -> dict[str, str]:
    """What is told of each dataset version that was revoked, by its label."""
    rows = corpus.journal.query("select name || '-' || version, manifest from datasets where status = 'revoked'")
    return {label: told_revoked(revocation(orjson.loads(text)) or {}) for label, text in rows}


def refuse_revoked(corpus: Corpus, label: str, manifest_sha256: str | None = None) -> None:
    """Raise SealRefused for a dataset that was revoked, by its name or by a manifest that it had before."""
    for name, version, text in corpus.journal.query(
        "select name, version, manifest from datasets where status = 'revoked'"
    ):
        found = revocation(orjson.loads(text)) or {}
        if label == f"{name}-{version}" or (manifest_sha256 and manifest_sha256 == found.get("manifest_sha256")):
            raise SealRefused(f"{name}-{version} {told_revoked(found)}; select a new version: corpusgen select {name}")
    told = "select seq from events where kind = 'dataset_revoked' and json_extract(payload, '$.dataset') = ?"
    if rows := corpus.journal.query(told, (label,)):
        raise CorpusDamaged(f"{label} was revoked (event {rows[0][0]}), and the journal does not say so any more")


def refuse_unless_sealed(corpus: Corpus, label: str, manifest_sha256: str) -> None:
    """Raise SealRefused unless a dataset is sealed here with this very manifest, whoever hands it over."""
    from corpusgen.provenance.seal import manifest_digest  # whoever asks teachers needs none of it

    refuse_revoked(corpus, label, manifest_sha256)
    rows = corpus.journal.query(
        "select manifest from datasets where name || '-' || version = ? and status = 'sealed'", (label,)
    )
    there = manifest_digest(orjson.loads(rows[0][0])["seal"]) if rows else "no sealed version"
    if there != manifest_sha256:
        raise SealRefused(
            f"{label} with manifest {manifest_sha256} is not sealed in {corpus.folder}, which has {there}; name a"
            " dataset that is sealed here"
        )


def told_revoked(found: Mapping[str, Json]) -> str:
    """Who revoked a dataset, when and why, in words."""
    why = f" ({found['reason']})" if found.get("reason") else ""
    return (
        f"was revoked on {str(found.get('revoked_time'))[:10]} by {found.get('by')}: erasure"
        f" {found.get('erasure_id')} took rows out of it{why}"
    )


def refuse_to_retire(corpus: Corpus, student_id: str) -> None:
    """Raise SealRefused for a student that has learned from what was erased."""
    _refuse_unsigned_change(corpus, student_id)
    for one in _signed_erasures(corpus):
        if student_id in one["students"]:
            raise SealRefused(
                f"student {student_id} has learned from what erasure {one['erasure_id']} took out on"
                f" {str(one['erased_time'])[:10]}, and weights forget nothing; retire it, and train another on a"
                " version that is selected and sealed anew"
            )


def _refuse_unsigned_change(corpus: Corpus, student_id: str) -> None:
    """Raise CorpusDamaged where only an event that nobody signed says what a student's files are by now."""
    rows = corpus.journal.query(
        "select seq, payload, seq <= (select coalesce(max(size), 0) from checkpoints) from events"
        " where kind = 'student_trained' and payload is not null and json_extract(payload, '$.student_id') = ?"
        " order by seq",
        (student_id,),
    )
    signed = [(seq, orjson.loads(text).get("files")) for seq, text, is_signed in rows if is_signed]
    for seq, text, is_signed in rows:
        if signed and not is_signed and orjson.loads(text).get("files") != signed[-1][1]:
            raise CorpusDamaged(
                f"student {student_id}: event {seq} says other files than event {signed[-1][0]}, and is not signed;"
                " see corpusgen verify, and train again"
            )
