"""Files and batches of callers as the journal keeps them: what was sent, how far each line is, what became of it.

An answer stands in the journal once, where all answers stand. What is told of a line is put together from there when
somebody asks, so that what is erased is told no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import orjson

from corpusgen.journal import Journal, Operation, Transaction
from corpusgen.records import Json
from corpusgen.serve.wires.calls import Wire

State: TypeAlias = Literal[
    "validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"
]
LineState: TypeAlias = Literal["waiting", "answered", "failed", "cancelled", "expired"]
UNFINISHED: Final[frozenset[State]] = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
DAY_US: Final = 86_400_000_000
LIFE_US: Final = DAY_US
"""How long a batch may take; what was not asked by then is not asked any more."""
KEPT_US: Final = 30 * DAY_US
"""How long files and the lines of ended batches are kept."""
_UNFINISHED: Final = "state in ('validating', 'in_progress', 'finalizing', 'cancelling')"


def new_id(kind: str) -> str:
    """A name that nobody else has, with a beginning of its own."""
    return f"{kind}{os.urandom(12).hex()}"


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file that was sent, or the results of a batch."""

    id: str
    user: str
    token_id: str
    name: str
    purpose: str
    size: int
    batch_id: str | None
    """The batch whose results it is."""
    made_us: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of calls."""

    id: str
    user: str
    token_id: str
    wire: Wire
    state: State
    facts: Mapping[str, Json]
    made_us: int
    ended_us: int | None

    @property
    def tag(self) -> str:
        """What the names of those batches begin with that are handed over for it."""
        return f"corpusgen-{self.id[-12:]}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One call of a batch."""

    n: int
    custom_id: str
    body: bytes | None = None
    state: LineState = "waiting"
    key: bytes | None = None
    result: bytes | None = None
    """The answer where it is not told as the teacher gave it, and so not to be found by its request."""
    told: Mapping[str, Json] | None = None


# --- files ------------------------------------------------------------------------------------------------------------

_FILE: Final = "file_id, user, token_id, name, purpose, size_bytes, service_batch_id, made_us"


def keep_file(found: StoredFile, *, sha256: str | None, body: bytes | None) -> Operation[None]:
    """Keep a file."""
    row = (found.id, found.user, found.token_id, found.name, found.purpose, found.size, found.batch_id, found.made_us)
    sql = f"insert into service_files({_FILE}, sha256, body) values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    return lambda transaction: transaction.execute(sql, (*row, sha256, body)).close()


def find_file(journal: Journal, file_id: str) -> StoredFile | None:
    """A file by its name."""
    rows = journal.query(f"select {_FILE} from service_files where file_id = ?", (file_id,))  # noqa: S608
    return _file(rows[0]) if rows else None


def body_of_file(journal: Journal, file_id: str) -> bytes | None:
    """What stands in a file that was sent; None where it is not here any more."""
    rows = journal.query("select body from service_files where file_id = ?", (file_id,))
    return rows[0][0] if rows else None


def drop_file(file_id: str) -> Operation[None]:
    """Forget a file."""
    return lambda transaction: transaction.execute("delete from service_files where file_id = ?", (file_id,)).close()


def files_of(journal: Journal, user: str | None, page: Page, purpose: str | None) -> tuple[list[StoredFile], bool]:
    """A page of the files of a user, or of everybody, and whether there are more."""
    more = "" if purpose is None else "purpose = :purpose"
    rows, left = _page(journal, page, "service_files", "file_id", _FILE, user, more, {"purpose": purpose})
    return [_file(row) for row in rows], left


STORED_BYTES: Final = (
    "select coalesce(sum(size_bytes), 0) from service_files where user = ? and service_batch_id is null"
)
"""The size of what a user has sent and not deleted."""


def _file(row: Sequence[Any]) -> StoredFile:
    file_id, user, token_id, name, purpose, size, batch_id, made_us = row
    return StoredFile(
        id=file_id,
        user=user,
        token_id=token_id,
        name=name,
        purpose=purpose,
        size=size,
        batch_id=batch_id,
        made_us=made_us,
    )


# --- pages ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Page:
    """A part of a list: so many after or before one of them."""

    limit: int = 20
    after: str | None = None
    before: str | None = None
    oldest_first: bool = False


def _page(
    journal: Journal,
    page: Page,
    table: str,
    name: str,
    columns: str,
    user: str | None,
    more: str,
    values: Mapping[str, Any],
) -> tuple[list[tuple[Any, ...]], bool]:
    """Rows in the order of the list, and whether there are more in the direction that was asked."""
    back = page.before is not None
    falling = page.oldest_first is back
    place = f"(select made_us, {name} from {table} where {name} = :from)"  # noqa: S608 - own names
    beyond = f"(made_us, {name}) {'<' if falling else '>'} {place}"
    where = [one for one in ("user = :user" if user is not None else "", more) if one]
    where += [beyond] if page.after or page.before else []
    order = "desc" if falling else "asc"
    sql = (
        f"select {columns} from {table} where {' and '.join(where) or 'true'}"  # noqa: S608 - own names
        f" order by made_us {order}, {name} {order} limit :limit"
    )
    given = {"user": user, "from": page.after or page.before, "limit": page.limit + 1, **values}
    rows = journal.query(sql, given)
    found = rows[: page.limit]
    return (found[::-1] if back else found), len(rows) > page.limit


# --- batches ----------------------------------------------------------------------------------------------------------

_BATCH: Final = "service_batch_id, user, token_id, wire, state, facts, made_us, ended_us"


def keep_batch(batch: Batch, lines: Iterable[Line], most: int) -> Operation[bool]:
    """Keep a batch, unless so many of its token's are under way."""

    def operation(transaction: Transaction) -> bool:
        sql = f"select count(*) from service_batches where token_id = ? and {_UNFINISHED}"  # noqa: S608
        if transaction.rows(sql, (batch.token_id,))[0][0] >= most:
            return False
        row = (batch.id, batch.user, batch.token_id, batch.wire, batch.state, _text(batch.facts))
        transaction.execute(
            f"insert into service_batches({_BATCH}) values(?, ?, ?, ?, ?, ?, ?, null)",
            (*row, batch.made_us),
        )
        _insert(transaction, batch.id, lines)
        return True

    return operation


def validated(batch_id: str, lines: Sequence[Line], facts: Mapping[str, Json]) -> Operation[None]:
    """Keep the lines of a batch that was found to be sound."""

    def operation(transaction: Transaction) -> None:
        if change(batch_id, ("validating",), "in_progress", facts)(transaction):
            _insert(transaction, batch_id, lines)

    return operation


def _insert(transaction: Transaction, batch_id: str, lines: Iterable[Line]) -> None:
    transaction.connection.executemany(
        "insert into service_lines(service_batch_id, n, custom_id, body) values(?, ?, ?, ?)",
        ((batch_id, line.n, line.custom_id, line.body) for line in lines),
    )


def change(batch_id: str, states: Sequence[State], to: State, facts: Mapping[str, Json]) -> Operation[bool]:
    """Bring a batch that is in one of some states into another, and note more of it; says whether it was."""
    ends = to not in UNFINISHED

    def operation(transaction: Transaction) -> bool:
        marks = ", ".join("?" * len(states))
        return bool(
            transaction.rows(
                "update service_batches set state = ?, facts = json_patch(facts, ?), ended_us = ?"  # noqa: S608
                f" where service_batch_id = ? and state in ({marks}) returning 1",
                (to, _text(facts), transaction.now_us if ends else None, batch_id, *states),
            )
        )

    return operation


def find_batch(journal: Journal, batch_id: str) -> Batch | None:
    """A batch by its name."""
    rows = journal.query(f"select {_BATCH} from service_batches where service_batch_id = ?", (batch_id,))  # noqa: S608
    return _batch(rows[0]) if rows else None


def unfinished(journal: Journal) -> list[Batch]:
    """The batches that have not come to their end, oldest first."""
    sql = f"select {_BATCH} from service_batches where {_UNFINISHED} order by made_us"  # noqa: S608 - own names
    return [_batch(row) for row in journal.query(sql)]


def batches_of(
    journal: Journal, user: str | None, page: Page, *, messages: bool | None = None
) -> tuple[list[Batch], bool]:
    """A page of the batches of a user, or of everybody: Anthropic's, OpenAI's or both; and whether there are more."""
    more = "" if messages is None else "wire = 'messages'" if messages else "wire != 'messages'"
    rows, left = _page(journal, page, "service_batches", "service_batch_id", _BATCH, user, more, {})
    return [_batch(row) for row in rows], left


def drop_batch(batch_id: str) -> Operation[None]:
    """Forget a batch and its lines; answers stay where they are."""

    def operation(transaction: Transaction) -> None:
        for table in ("service_lines", "service_files", "service_batches"):
            transaction.execute(f"delete from {table} where service_batch_id = ?", (batch_id,))  # noqa: S608

    return operation


def _batch(row: Sequence[Any]) -> Batch:
    batch_id, user, token_id, wire, state, facts, made_us, ended_us = row
    return Batch(
        id=batch_id,
        user=user,
        token_id=token_id,
        wire=wire,
        state=state,
        facts=orjson.loads(facts),
        made_us=made_us,
        ended_us=ended_us,
    )


def _text(value: Mapping[str, Json]) -> str:
    return orjson.dumps(dict(value)).decode()


# --- lines ------------------------------------------------------------------------------------------------------------


def waiting(journal: Journal, batch_id: str) -> list[int]:
    """The numbers of the lines of which nothing is known yet."""
    sql = "select n from service_lines where service_batch_id = ? and state = 'waiting' order by n"
    return [row[0] for row in journal.query(sql, (batch_id,))]


def find_line(journal: Journal, batch_id: str, n: int) -> Line:
    """A line by its number."""
    return next(_lines(journal, "n = ?", (batch_id, n)))


def lines_from(journal: Journal, batch_id: str, after: int, most: int, states: Sequence[LineState]) -> list[Line]:
    """Some lines in these states behind a number."""
    among = ", ".join(f"'{state}'" for state in states)
    return list(_lines(journal, f"state in ({among}) and n > ? order by n limit ?", (batch_id, after, most)))


def _lines(journal: Journal, where: str, values: tuple[Any, ...]) -> Iterator[Line]:
    sql = "select n, custom_id, body, state, request_key, result, told from service_lines where service_batch_id = ?"
    for n, custom_id, body, state, key, result, told in journal.query(f"{sql} and {where}", values):
        facts = None if told is None else orjson.loads(told)
        yield Line(n=n, custom_id=custom_id, body=body, state=state, key=key, result=result, told=facts)


def finish_line(batch_id: str, line: Line, size: int) -> Operation[None]:
    """Note what became of a line; its call is forgotten, which stands with its answer where it was asked."""
    told = None if line.told is None else _text(line.told)
    sql = (
        "update service_lines set state = ?, request_key = ?, result = ?, told = ?, size_bytes = ?, body = null"
        " where service_batch_id = ? and n = ? and state = 'waiting'"
    )
    values = (line.state, line.key, line.result, told, size, batch_id, line.n)
    return lambda transaction: transaction.execute(sql, values).close()


_COUNTS: Final = "select state, count(*) from service_lines where service_batch_id = ? group by 1"
_COST: Final = (
    "select coalesce(sum(json_extract(told, '$.cost_microusd')), 0) from service_lines"
    " where service_batch_id = ? and state = 'answered'"
)


def counts(journal: Journal, batch: Batch) -> dict[LineState, int]:
    """How many lines are in which state; of a batch that was worked on to its end, as it was then."""
    noted: dict[LineState, int] | None = batch.facts.get("lines")
    return dict(journal.query(_COUNTS, (batch.id,))) if noted is None else noted


def cost(journal: Journal, batch: Batch) -> int:
    """What its answers have cost so far, as their lines tell it."""
    noted: int | None = batch.facts.get("cost_microusd")
    return int(journal.query(_COST, (batch.id,))[0][0]) if noted is None else noted


def finish(batch: Batch, to: State, output_id: str | None, error_id: str | None) -> Operation[bool]:
    """End a batch, with the files of its results where it has any."""

    def operation(transaction: Transaction) -> bool:
        facts: dict[str, Json] = {
            "usage": _usage(transaction, batch.id),
            "finalizing_us": transaction.now_us,
            # Lines are forgotten in time, and reading many again for each list would take long.
            "lines": dict(transaction.rows(_COUNTS, (batch.id,))),
            "cost_microusd": transaction.rows(_COST, (batch.id,))[0][0],
        }
        sizes = dict(
            transaction.rows(
                "select state = 'answered', sum(size_bytes) from service_lines where service_batch_id = ? group by 1",
                (batch.id,),
            )
        )
        for good, name, field in ((1, output_id, "output_file_id"), (0, error_id, "error_file_id")):
            if good in sizes and name is not None:
                facts[field] = name
                _keep_results(transaction, batch, name, field.removesuffix("_file_id"), int(sizes[good]))
        return change(batch.id, ("in_progress", "finalizing", "cancelling"), to, facts)(transaction)

    return operation


def _keep_results(transaction: Transaction, batch: Batch, name: str, what: str, size: int) -> None:
    found = StoredFile(
        id=name,
        user=batch.user,
        token_id=batch.token_id,
        name=f"{batch.id}_{what}.jsonl",
        purpose="batch_output",
        size=size,
        batch_id=batch.id,
        made_us=transaction.now_us,
    )
    keep_file(found, sha256=None, body=None)(transaction)


def _usage(transaction: Transaction, batch_id: str) -> list[int]:
    rows = transaction.rows(
        "select coalesce(sum(a.input_tokens), 0), coalesce(sum(a.cached_input_tokens), 0),"
        " coalesce(sum(a.output_tokens), 0), coalesce(sum(a.reasoning_tokens), 0)"
        " from service_lines l join answers a using (request_key) where l.service_batch_id = ?",
        (batch_id,),
    )
    return list(rows[0])


def paid_in(journal: Journal, key: bytes, tag: str) -> bool:
    """Whether the answer to a request came in a batch that was handed over for a batch of this tag."""
    sql = "select c.batch_id from answers a join calls c using (call_id) where a.request_key = ?"
    rows = journal.query(sql, (key,))
    return bool(rows) and rows[0][0] is not None and rows[0][0].startswith(tag)


def purge(transaction: Transaction) -> None:
    """Forget files and the lines of ended batches that have been kept for long enough."""
    before = transaction.now_us - KEPT_US
    transaction.execute("delete from service_files where made_us < ?", (before,))
    transaction.execute(
        "delete from service_lines where service_batch_id in"
        " (select service_batch_id from service_batches where ended_us < ?)",
        (before,),
    )


def ended(line: Line, state: LineState, told: Mapping[str, Json] | None = None, **more: Any) -> Line:
    """A line with what became of it."""
    return replace(line, state=state, told=told, body=None, **more)


NewId: TypeAlias = Callable[[str], str]
