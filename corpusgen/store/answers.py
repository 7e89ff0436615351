"""Answers and records in the journal: what was asked, what came back, and which record it became."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import apsw
import orjson
import zstandard

from corpusgen.errors import CorpusDamaged
from corpusgen.frozen import quickly_made
from corpusgen.journal import Transaction
from corpusgen.records import Json, Request, Split, Usage, canonical_json, digest


# A compressor serves one thread at a time, and each journal that is open in this process has a writer thread.
class _OfThread(threading.local):
    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1)


_OF_THREAD = _OfThread()


MAX_BODY_BYTES = 256 * 1024 * 1024
LOOKUP = 400
PER_SHARD = 10_000
"""Records of one shard: those whose place in the run falls into the same ten thousand."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Who answered, by which road, under which terms: constant over a run, stored once."""

    teacher: str
    provider: str
    model: str
    route: str
    host: str
    identity: str
    revision: str
    terms_set_id: str
    terms_ids: tuple[str, ...]
    outputs_train: str

    @cached_property
    def card_id(self) -> str:
        """Digest of the card."""
        return digest(self._fields())

    def _fields(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def to_json(self) -> str:
        """The card as it is stored."""
        return canonical_json(self._fields()).decode()

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card that was stored."""
        fields = orjson.loads(text)
        return cls(**{**fields, "terms_ids": tuple(fields["terms_ids"])})


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Answer:
    """One paid-for reply as it came over the wire, with what it cost."""

    request_key: bytes
    card_id: str
    usage: Usage
    cost_microusd: int
    price_version: str
    provider_request_id: str | None
    sent_us: int
    received_us: int
    compute_us: int | None
    body: bytes


@quickly_made
@dataclass(frozen=True, kw_only=True)
class RecordRow:
    """Which item an answer belongs to; with the answer it makes a record."""

    record_id: str
    run_id: str
    dataset: str
    split: Split
    ordinal: int
    item_id: str
    request_key: bytes
    first_key: bytes
    from_cache: bool
    item: Mapping[str, Json]
    """``input``, ``source_ids``, ``sample_index``; where it was asked more than once ``first_cost_microusd``, what all
    but the last came to, ``between``, the requests after the first and before the last, and ``turns``, the messages
    that are the question; ``role`` of a teacher that is not the first; where one call gave several answers ``choice``,
    which of them it is, and ``share``, its place among how many that bear the call's cost; ``parent_ids``, the records
    that what was asked about was made from."""


def store_card(transaction: Transaction, card: Card) -> None:
    """Keep a card; the same card twice is one row."""
    transaction.execute("insert into cards values(?, ?) on conflict do nothing", (card.card_id, card.to_json()))


def store_answer(transaction: Transaction, request: Request, answer: Answer, call_id: int) -> None:
    """Keep an answer and the request it answers. The first answer to a request stays."""
    store_request(transaction, request)
    if transaction.unheard_of:
        transaction.unheard_of.discard(answer.request_key)
    transaction.add(
        "answers",
        (
            answer.request_key,
            call_id,
            answer.card_id,
            answer.usage.input_tokens,
            answer.usage.cached_input_tokens,
            answer.usage.output_tokens,
            answer.usage.reasoning_tokens,
            answer.cost_microusd,
            answer.price_version,
            answer.provider_request_id,
            answer.sent_us,
            answer.received_us,
            answer.compute_us,
            _OF_THREAD.compressor.compress(answer.body),
        ),
    )


def store_request(transaction: Transaction, request: Request) -> None:
    """Keep a request; the same one twice is one row."""
    transaction.add("requests", (request.key, _OF_THREAD.compressor.compress(request.body)))


def store_record(transaction: Transaction, row: RecordRow) -> None:
    """Note that an answer is a record; the same record twice is one row."""
    transaction.add(
        "records",
        (
            bytes.fromhex(row.record_id),
            row.run_id,
            row.dataset,
            row.split,
            row.ordinal,
            row.item_id,
            row.request_key,
            row.first_key,
            int(row.from_cache),
            orjson.dumps(dict(row.item)).decode(),
            None,
        ),
    )


_ANSWER = (
    "a.request_key, a.card_id, a.input_tokens, a.cached_input_tokens, a.output_tokens, a.reasoning_tokens,"
    " a.cost_microusd, a.price_version, a.provider_request_id, a.sent_us, a.received_us, a.compute_us, a.body"
)
_ROW = (
    "r.record_id, r.run_id, r.dataset, r.split, r.ordinal, r.item_id, r.request_key, r.first_key, r.from_cache, r.item"
)


def find_answer(connection: apsw.Connection, request_key: bytes) -> Answer | None:
    """The stored answer to a request, if there is one."""
    row = connection.execute(f"select {_ANSWER} from answers a where request_key = ?", (request_key,)).fetchone()  # noqa: S608
    return None if row is None else _answer(row, expander())


def known_records(connection: apsw.Connection, record_ids: Iterable[str]) -> set[str]:
    """Which of these records exist."""
    names = [bytes.fromhex(record_id) for record_id in record_ids]
    return {name.hex() for name in _present(connection, "select record_id from records where record_id", names)}


def runs_of_records(connection: apsw.Connection, record_ids: Sequence[str]) -> dict[str, str]:
    """Those of these records that exist, and the runs that made them."""
    found: dict[str, str] = {}
    for start in range(0, len(record_ids), LOOKUP):
        chunk = tuple(bytes.fromhex(record_id) for record_id in record_ids[start : start + LOOKUP])
        marks = ",".join("?" * len(chunk))
        rows = connection.execute(f"select hex(record_id), run_id from records where record_id in ({marks})", chunk)  # noqa: S608
        found.update((str(name).lower(), str(run_id)) for name, run_id in rows)
    return found


def known_answers(connection: apsw.Connection, request_keys: Sequence[bytes]) -> set[bytes]:
    """Which of these requests have an answer."""
    return _present(connection, "select request_key from answers where request_key", request_keys)


def _present(connection: apsw.Connection, select: str, wanted: Sequence[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for start in range(0, len(wanted), LOOKUP):
        chunk = tuple(wanted[start : start + LOOKUP])
        found.update(row[0] for row in connection.execute(f"{select} in ({','.join('?' * len(chunk))})", chunk))
    return found


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record's row with its answer."""

    row: RecordRow
    answer: Answer


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Stored(Kept):
    """A record's row with its answer and the canonical request."""

    request: Json


def kept_records(connection: apsw.Connection, record_ids: Sequence[str]) -> dict[str, Kept]:
    """Those of these records that exist, with their answers, by record id."""
    found: dict[str, Kept] = {}
    expand = expander()
    for start in range(0, len(record_ids), LOOKUP):
        chunk = tuple(bytes.fromhex(record_id) for record_id in record_ids[start : start + LOOKUP])
        marks = ",".join("?" * len(chunk))
        rows = connection.execute(
            f"select {_ROW}, {_ANSWER} from records r join answers a using (request_key)"  # noqa: S608 - own text
            f" where r.record_id in ({marks})",
            chunk,
        )
        for row in rows:
            record = _record_row(row[:10])
            found[record.record_id] = Kept(row=record, answer=_answer(row[10:], expand))
    return found


def stored_request(connection: apsw.Connection, request_key: bytes) -> Json:
    """The canonical request of that key."""
    body = connection.execute("select body from requests where request_key = ?", (request_key,)).get
    return orjson.loads(expander()(cast("bytes", body)))


def stored_requests(connection: apsw.Connection, request_keys: Sequence[bytes]) -> dict[bytes, Json]:
    """The canonical requests of these keys."""
    found: dict[bytes, Json] = {}
    expand = expander()
    for start in range(0, len(request_keys), LOOKUP):
        chunk = tuple(request_keys[start : start + LOOKUP])
        marks = ",".join("?" * len(chunk))
        rows = connection.execute(f"select request_key, body from requests where request_key in ({marks})", chunk)  # noqa: S608
        found.update((cast("bytes", key), orjson.loads(expand(cast("bytes", body)))) for key, body in rows)
    return found


def stored_records(connection: apsw.Connection, where: str, values: tuple[Any, ...]) -> Iterator[Stored]:
    """Records with their answers, sorted by record id; ``where`` is one of our own conditions on ``r``."""
    expand = expander()
    # The names are sorted alone: sorting the rows with their bodies would hold all of them in memory.
    names = [row[0] for row in connection.execute(f"select record_id from records r where {where} order by 1", values)]  # noqa: S608
    for start in range(0, len(names), LOOKUP):
        chunk = tuple(names[start : start + LOOKUP])
        cursor = connection.execute(
            f"select {_ROW}, {_ANSWER}, q.body from records r join answers a using (request_key)"  # noqa: S608 - own text
            f" join requests q using (request_key) where r.record_id in ({','.join('?' * len(chunk))})"
            " order by r.record_id",
            chunk,
        )
        for row in cursor:
            request = orjson.loads(expand(row[23]))
            yield Stored(row=_record_row(row[:10]), answer=_answer(row[10:23], expand), request=request)


def _record_row(row: tuple[Any, ...]) -> RecordRow:
    return RecordRow(
        record_id=row[0].hex(),
        run_id=row[1],
        dataset=row[2],
        split=cast("Split", row[3]),
        ordinal=row[4],
        item_id=row[5],
        request_key=row[6],
        first_key=row[7],
        from_cache=bool(row[8]),
        item=orjson.loads(row[9]),
    )


def _answer(row: tuple[Any, ...], expand: Callable[[bytes], bytes]) -> Answer:
    return Answer(
        request_key=row[0],
        card_id=row[1],
        usage=Usage(input_tokens=row[2], cached_input_tokens=row[3], output_tokens=row[4], reasoning_tokens=row[5]),
        cost_microusd=row[6],
        price_version=row[7],
        provider_request_id=row[8],
        sent_us=row[9],
        received_us=row[10],
        compute_us=row[11],
        body=expand(row[12]),
    )


def expander() -> Callable[[bytes], bytes]:
    """Reads what the journal keeps compressed; one for each thread."""
    decompressor = zstandard.ZstdDecompressor()

    def expand(body: bytes) -> bytes:
        try:
            return decompressor.decompress(body, max_output_size=MAX_BODY_BYTES)
        except zstandard.ZstdError as error:
            raise CorpusDamaged(f"an answer in the journal cannot be read ({error}); restore a backup") from error

    return expand
