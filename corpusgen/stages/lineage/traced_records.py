"""The large tables of the lineage: requests, records and what ties them, joined by DuckDB from journal and shards.

The journal's rows and the shards' columns go into a database file of their own, so that memory stays small however many
records there are; a row is looked at in Python only on its way out of SQLite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import duckdb
import orjson
import pyarrow as pa

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, CorpusUnwritable
from corpusgen.stages.lineage.reading import without_pattern
from corpusgen.stages.lineage.traced_facts import Facts
from corpusgen.stages.selecting import Selection, selections, split_of
from corpusgen.store.answers import expander
from corpusgen.store.manifest import Manifest

T = TypeVar("T")

LARGE: Final = ("requests", "records", "record_requests", "record_sources", "record_parents", "dataset_records")
"""The tables that are made here."""

_AT_ONCE: Final = 50_000
_SETTINGS: Final[Mapping[str, str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "2",
    "memory_limit": "512MB",
    "preserve_insertion_order": "false",
}
_TEXT, _INT, _YES, _BYTES = pa.string(), pa.int64(), pa.bool_(), pa.binary()
_TEXTS = pa.list_(_TEXT)

_OF_JOURNAL: Final[Mapping[str, tuple[str, Sequence[tuple[str, pa.DataType]]]]] = {
    "calls": (
        # A call that was given back before anything was sent counts as no request.
        (
            "select call_id, run_id, request_key, teacher, role, state != 'released' or coalesce(requests, 0) > 0,"
            " state in ('unknown', 'promised'), coalesce(microusd, 0), reserved_us, provider_request_id from calls"
            " where role like '%:%'"
        ),
        (
            ("call_id", _INT),
            ("run_id", _TEXT),
            ("request_key", _BYTES),
            ("teacher", _TEXT),
            ("role", _TEXT),
            ("sent", _YES),
            ("untold", _YES),
            ("microusd", _INT),
            ("reserved_us", _INT),
            ("provider_request_id", _TEXT),
        ),
    ),
    "answers": (
        "select request_key, call_id, card_id, input_tokens, output_tokens, sent_us, provider_request_id from answers",
        (
            ("request_key", _BYTES),
            ("call_id", _INT),
            ("card_id", _TEXT),
            ("input_tokens", _INT),
            ("output_tokens", _INT),
            ("sent_us", _INT),
            ("provider_request_id", _TEXT),
        ),
    ),
    "reuses": ("select run_id, record_id from reuses", (("run_id", _TEXT), ("record_id", _BYTES))),
}
"""What is read of the journal: our SQL, and the columns it gives."""

_RECORDS: Final = """
create table shard_records as
select row_number() over (order by filename, record_id) - 1 as record_no, unhex(record_id) as record_id, run_id, kind,
    licence_expression, filename, pii_kinds, coalesce(input_tokens, 0) as input_tokens,
    coalesce(output_tokens, 0) as output_tokens, received_time, unhex(request_key) as request_key,
    list_transform(request_keys, lambda key: unhex(key)) as request_keys, model_served,
    list_transform(source_ids, lambda name: split_part(name, '#', 1)) as source_ids,
    list_transform(parent_ids, lambda name: unhex(name)) as parent_ids
from read_parquet($paths, filename = true, union_by_name = true)
"""
_NO_RECORDS: Final = """
create table shard_records(record_no bigint, record_id blob, run_id varchar, kind varchar, licence_expression varchar,
    filename varchar, pii_kinds varchar[], input_tokens bigint, output_tokens bigint, received_time timestamptz,
    request_key blob, request_keys blob[], model_served varchar, source_ids varchar[], parent_ids blob[])
"""

_LINKS: Final = (
    # What stands in a record of its sources: the item's own first, the worked examples after it.
    """
create table used as
select distinct record_no, run_no, source_id,
    case when kind = 'judgement' then 'context' when place = 1 then 'seed'
        when source_id = shown then 'few_shot' else 'context' end as role
from (
    select record_no, run_id, kind, unnest(source_ids) as source_id, generate_subscripts(source_ids, 1) as place
    from shard_records
) join known_runs using (run_id)
""",
    """
create table parents as
select distinct made.record_no, kind, parent_id, earlier.record_no as parent_no
from (select record_no, kind, unnest(parent_ids) as parent_id from shard_records) made
left join (select record_no, record_id from shard_records) earlier on earlier.record_id = made.parent_id
""",
    # Which requests each run put, and which it found answered.
    """
create table put as
select run_id, request_key, arg_max(teacher, call_id) as teacher, arg_max(split_part(role, ':', -1), call_id) as split,
    bool_or(untold) as untold, sum(microusd)::bigint as microusd, max(reserved_us) as reserved_us,
    arg_max(provider_request_id, call_id) as provider_request_id
from calls where sent group by run_id, request_key
""",
    """
create table asked as
select record_no, run_id, unnest(request_keys) as request_key from shard_records
""",
    """
create table pairs as
select run_id, request_key from put
union
select run_id, request_key from asked
union
select reuses.run_id, unnest(request_keys) from reuses join shard_records using (record_id)
""",
    # Classes of personal data: what is told of the sources of its records, their parents' too, and kinds that were
    # found in a record and are let through; of what became no record, what is told of the split's source.
    """
create table made_from as
with recursive closure(record_no, ancestor_no) as (
    select record_no, parent_no from parents where parent_no is not null
    union
    select closure.record_no, parents.parent_no from closure join parents on parents.record_no = closure.ancestor_no
    where parents.parent_no is not null
)
select record_no, ancestor_no from closure
""",
    """
create table told_classes as
select used.record_no, unnest(classes) as class from used join known_sources using (run_no, source_id)
union
select made_from.record_no, unnest(classes) from made_from
join used on used.record_no = made_from.ancestor_no join known_sources using (run_no, source_id)
union
select record_no, kind_found from (
    select record_no, run_id, unnest(pii_kinds) as kind_found from shard_records
) join known_runs using (run_id)
where list_contains(let_through, kind_found) or lets_through and not list_contains(held_back, kind_found)
""",
    """
create table pair_classes as
select run_id, request_key, string_agg(distinct class, ',' order by class) as personal_data from (
    select run_id, request_key, class from asked join told_classes using (record_no)
    union all
    select reuses.run_id, unnest(request_keys), class
    from reuses join shard_records using (record_id) join told_classes using (record_no)
    union all
    select put.run_id, request_key, unnest(classes)
    from put join known_runs using (run_id) join known_splits using (run_no, split)
) group by run_id, request_key
""",
    """
create table served as
select request_key, any_value(model_served) as model_served from shard_records group by request_key
union all
select request_key, model_served from read_bodies
""",
    """
create table requests as
select row_number() over (order by run_no, sent_time, request_key) - 1 as request_no, found.* from (
    select known_runs.run_no, pairs.run_id, pairs.request_key, put.run_id is null as from_cache,
        answers.request_key is not null and (put.run_id is null or of_call.run_id = put.run_id) as here,
        answers.request_key is not null as answered, put.untold, of_call.run_id as origin_run_id,
        coalesce(card.teacher_no, by_name.teacher_no, 0) as teacher_no,
        coalesce(by_name.checked_no, card.terms_set_no, by_name.terms_set_no, 0) as checked_no, card.terms_set_no,
        answers.input_tokens, answers.output_tokens, coalesce(put.microusd, 0) as microusd,
        answers.sent_us, coalesce(case when put.run_id is null or of_call.run_id = put.run_id then answers.sent_us end,
            put.reserved_us, 0) as sent_time,
        case when put.run_id is null then answers.provider_request_id
            else coalesce(put.provider_request_id, case when of_call.run_id = put.run_id
                then answers.provider_request_id end) end as provider_request_id,
        by_name.region, served.model_served, pair_classes.personal_data
    from pairs
    join known_runs using (run_id)
    left join put on put.run_id = pairs.run_id and put.request_key = pairs.request_key
    left join answers on answers.request_key = pairs.request_key
    left join (select call_id, run_id from calls) of_call on of_call.call_id = answers.call_id
    left join known_cards card on card.card_id = answers.card_id
    left join known_teachers by_name on by_name.run_no = known_runs.run_no
        and by_name.teacher = coalesce(put.teacher, card.teacher)
    left join served on served.request_key = pairs.request_key
    left join pair_classes on pair_classes.run_id = pairs.run_id and pair_classes.request_key = pairs.request_key
) found
""",
)
"""What is joined, in this order."""

_OUT: Final[Mapping[str, str]] = {
    "requests": """
select mine.request_no, mine.request_key, mine.run_no, mine.teacher_no,
    case when mine.from_cache or not mine.here then mine.checked_no else mine.terms_set_no end as terms_set_no,
    mine.from_cache, origin.request_no as origin_request_no,
    case when mine.answered and (mine.from_cache or not mine.here) then mine.terms_set_no end as origin_terms_set_no,
    case when mine.answered and (mine.from_cache or not mine.here) then make_timestamp(mine.sent_us) end
        as origin_sent_time,
    case when mine.here then 'answered' when mine.untold then 'unknown' else 'unanswered' end as state,
    mine.model_served, mine.provider_request_id, mine.region, mine.personal_data,
    coalesce(mine.input_tokens, 0) as input_tokens, coalesce(mine.output_tokens, 0) as output_tokens,
    mine.microusd as cost_microusd, make_timestamp(mine.sent_time) as sent_time
from requests mine
left join requests origin on origin.request_key = mine.request_key and origin.run_id = mine.origin_run_id
    and origin.run_id <> mine.run_id
order by mine.request_no
""",
    "records": """
select record_no, record_id, run_no, kind, licence_expression as licence, substr(filename, $skipped) as shard,
    case when len(pii_kinds) > 0 then array_to_string(list_sort(pii_kinds), ',') end as personal_data,
    input_tokens, output_tokens, timezone('UTC', received_time) as created_time
from shard_records join known_runs using (run_id) order by record_no
""",
    "record_requests": """
select distinct record_no, request_no, role from (
    select asked.record_no, request_no, unnest(roles) as role
    from asked join requests using (run_id, request_key) join known_runs using (run_id)
    union all
    select parents.parent_no, request_no, unnest(roles)
    from parents join asked using (record_no) join requests using (run_id, request_key) join known_runs using (run_id)
    where parents.kind = 'judgement' and parents.parent_no is not null
) order by record_no, request_no, role
""",
    "record_sources": """
select distinct record_no, source_no, role from used join known_sources using (run_no, source_id)
order by record_no, source_no, role
""",
    "record_parents": """
select record_no, coalesce(parent_no, 2147483647) as parent_no,
    case when kind = 'judgement' then 'judged' else 'seed' end as how
from parents order by record_no, parent_no
""",
    "dataset_records": """
select dataset_no, record_no, split from dataset_rows join (select record_no, record_id from shard_records)
using (record_id) order by dataset_no, record_no
""",
}
"""What each table is selected with."""


@contextmanager
def joined(corpus: Corpus, facts: Facts, manifest: Manifest, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in ``folder`` that knows the large tables; ``select_large`` reads them."""
    settings: dict[str, Any] = {**_SETTINGS, "temp_directory": str(folder / "spill")}
    with _told(corpus):
        connection = duckdb.connect(str(folder / "joined.duckdb"), config=settings)
        try:
            _read_journal(connection, corpus)
            _tell(connection, facts)
            with _reading(corpus):
                _read_shards(connection, corpus, manifest)
                _read_datasets(connection, corpus, facts)
            _read_bodies(connection, corpus)
            for sql in _LINKS:
                connection.execute(sql)
            yield connection
        finally:
            connection.close()


def select_large(connection: duckdb.DuckDBPyConnection, corpus: Corpus, name: str) -> pa.RecordBatchReader:
    """The rows of a large table, in batches."""
    skipped = {"skipped": len(str(corpus.folder)) + 2} if "$skipped" in _OUT[name] else None
    return connection.sql(_OUT[name], params=skipped).to_arrow_reader(_AT_ONCE)


@contextmanager
def _told(corpus: Corpus) -> Iterator[None]:
    """A full disk and the like in our words."""
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise CorpusUnwritable(
            f"{corpus.folder}: the lineage cannot be written ({error}); free some space, or run corpusgen verify"
        ) from error


@contextmanager
def _reading(corpus: Corpus) -> Iterator[None]:
    """A file that is gone or damaged in our words."""
    try:
        yield
    except duckdb.Error as error:  # damage has no class of its own
        raise CorpusDamaged(
            f"{corpus.folder}: a file of records cannot be read ({error}); run corpusgen verify"
        ) from error


# --- Into the database -----------------------------------------------------------------------------------------------


def _read_journal(connection: duckdb.DuckDBPyConnection, corpus: Corpus) -> None:
    for name, (sql, columns) in _OF_JOURNAL.items():
        cursor: apsw.Cursor = corpus.journal.reader.execute(sql)
        _fill(connection, name, columns, cursor)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: Sequence[tuple[str, pa.DataType]],
    rows: Iterable[Sequence[Any]],
) -> None:
    schema = pa.schema(columns)
    _insert(connection, f"create table {name} as from incoming", schema.empty_table())
    for some in _portions(rows, _AT_ONCE):
        arrays = [_array(values, kind) for values, kind in zip(zip(*some, strict=True), schema.types, strict=True)]
        _insert(connection, f"insert into {name} from incoming", pa.table(arrays, schema=schema))


def _portions(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    waiting = iter(rows)
    while some := list(islice(waiting, size)):
        yield some


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    # SQLite has no truth values.
    return pa.array(values if kind != _YES else list(map(bool, values)), kind)


def _insert(connection: duckdb.DuckDBPyConnection, sql: str, table: pa.Table) -> None:
    connection.register("incoming", table)
    connection.execute(sql)
    connection.unregister("incoming")


def _tell(connection: duckdb.DuckDBPyConnection, facts: Facts) -> None:
    """What the small tables know, under the names that the large ones are joined by."""
    runs = ((one.run_id, one.run_no, one.shown, one.roles, *one.let_through, one.lets_through) for one in facts.specs)
    _fill(
        connection,
        "known_runs",
        (("run_id", _TEXT), ("run_no", _INT), ("shown", _TEXT), ("roles", _TEXTS), ("let_through", _TEXTS),
         ("held_back", _TEXTS), ("lets_through", _YES)),
        runs,
    )  # fmt: skip
    classes = {
        (one.run_no, source["id"]): sorted(one.classes_of(source["id"]))
        for one in facts.specs
        for source in one.sources
    }
    _fill(
        connection,
        "known_sources",
        (("run_no", _INT), ("source_id", _TEXT), ("source_no", _INT), ("classes", _TEXTS)),
        ((run_no, name, no, classes[run_no, name]) for (run_no, name), no in facts.source_no.items()),
    )
    splits = (
        (one.run_no, split, sorted(one.classes_of(one.seeds_of(split)) | one.classes_of(one.shown)))
        for one in facts.specs
        for split in ("train", "validation", "gold")
    )
    _fill(connection, "known_splits", (("run_no", _INT), ("split", _TEXT), ("classes", _TEXTS)), splits)
    columns = (("card_id", _TEXT), ("teacher", _TEXT), ("teacher_no", _INT), ("terms_set_no", _INT))
    cards = [
        (name, card.teacher, facts.teacher_no(card), facts.set_no[card.terms_set_id]) for name, card in facts.cards
    ]
    _fill(connection, "known_cards", columns, cards)
    _fill(
        connection,
        "known_teachers",
        (("run_no", _INT), ("teacher", _TEXT), ("teacher_no", _INT), ("terms_set_no", _INT), ("checked_no", _INT),
         ("region", _TEXT)),
        _teachers(facts),
    )  # fmt: skip


def _teachers(facts: Facts) -> Iterator[tuple[Any, ...]]:
    """Each run's teachers by name; a call that was never answered tells no more of whom it asked."""
    latest = {card.teacher: card for _, card in facts.cards}
    for run in facts.specs:
        regions = {one["name"]: one.get("region") for one in run.spec.get("teachers") or ()}
        for name, card in latest.items():
            checked = facts.checked.get((run.run_no, name))
            number = None if checked is None else facts.set_no[checked]
            yield run.run_no, name, facts.teacher_no(card), facts.set_no[card.terms_set_id], number, regions.get(name)


def _read_shards(connection: duckdb.DuckDBPyConnection, corpus: Corpus, manifest: Manifest) -> None:
    paths = [without_pattern(path) for path in manifest.paths(corpus.folder)]
    connection.execute(_RECORDS, {"paths": paths}) if paths else connection.execute(_NO_RECORDS)


def _read_datasets(connection: duckdb.DuckDBPyConnection, corpus: Corpus, facts: Facts) -> None:
    connection.execute("create table dataset_rows(dataset_no bigint, split varchar, record_id blob)")
    for one in selections(corpus):
        for path in _files_of(one):
            connection.execute(
                "insert into dataset_rows select $no, $split, unhex(record_id) from read_parquet($path)",
                {"no": facts.dataset_no[one.label], "split": split_of(path.name), "path": without_pattern(path)},
            )
    columns = (("dataset_no", _INT), ("split", _TEXT), ("record_id", _BYTES))
    _fill(connection, "validated", columns, facts.validated())
    connection.execute("insert into dataset_rows from validated")


def _files_of(selection: Selection) -> list[Path]:
    """The files of a version; of one that was revoked or is being made anew, those that are there."""
    if selection.status == "sealed":
        return selection.paths
    return [path for path in selection.paths if path.exists()]


def _read_bodies(connection: duckdb.DuckDBPyConnection, corpus: Corpus) -> None:
    """Which model answered where no record tells: on the way to one, or in vain."""
    names = "select request_key from answers where request_key not in (select request_key from shard_records)"
    keys = [row[0] for row in connection.execute(names).fetchall()]
    _fill(connection, "read_bodies", (("request_key", _BYTES), ("model_served", _TEXT)), _served(corpus, keys))


def _served(corpus: Corpus, keys: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
    expand = expander()
    for some in _portions(keys, 400):
        marks = ",".join("?" * len(some))
        sql = f"select request_key, body from answers where request_key in ({marks})"  # noqa: S608 - own text
        for key, body in corpus.journal.reader.execute(sql, some):
            yield bytes(key), _model_in(expand(bytes(body)))


def _model_in(body: bytes) -> str | None:
    """The model that a reply names: every wire format calls it that."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    model = found.get("model") if isinstance(found, dict) else None
    return model if isinstance(model, str) else None
