"""What an erasure takes, in numbers: who wrote and judged it, under which terms, of which source, in which dataset.

Counted before the cut, because afterwards nobody knows; kept with the erasure, so that questions about students and
releases still add up. It names no record and no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from corpusgen.corpus import Corpus
from corpusgen.records import Json
from corpusgen.stages.erasure.reaching import Reach, stays
from corpusgen.stages.lineage.reading import opened
from corpusgen.stages.lineage.traced_facts import Facts
from corpusgen.stages.lineage.tracing import lineage_files
from corpusgen.stages.selecting import split_of
from corpusgen.store.shards import read_records

_LEAVING: Final = """
create temp table leaving as
select distinct dataset, dataset_no, split, record_no from (
    select dataset, split, unhex(record) as record_id from going where dataset is not null
) join records using (record_id) left join v_dataset using (dataset)
union all
select dataset, dataset_no, split, record_no from dataset_records join v_dataset using (dataset_no)
join records using (record_no)
join (select unhex(record) as record_id from going where dataset is null) using (record_id)
where status = 'validation'
union all
select null, null, null, record_no from records
join (select unhex(record) as record_id from going where dataset is null) using (record_id)
"""
_TOTALS: Final = """
count(*) as records, count(*) filter (by_parent) as by_parents, sum(input_tokens)::bigint as input_tokens,
sum(output_tokens)::bigint as output_tokens
"""
_COUNTED: Final = {
    "record": f"""
select dataset, split, kind, {_TOTALS} from (select *, false as by_parent from leaving join records using (record_no))
group by all order by all
""",  # noqa: S608 - own text
    "use": f"""
select dataset, split, teacher_no, terms_set_no, role, model_served, {_TOTALS} from (
    select dataset, split, used.teacher_no, used.terms_set_no, used.role, model_served, record_no,
        bool_and(ancestor_no <> record_no) as by_parent
    from leaving join v_use used using (record_no) join requests using (request_no)
    where dataset is not null group by all
) join records using (record_no) group by all order by all
""",  # noqa: S608 - own text
    "source": f"""
select dataset, split, source_id, {_TOTALS} from (
    select dataset, split, source_id, record_no, bool_and(ancestor_no <> record_no) as by_parent
    from leaving join v_source using (record_no) join sources using (source_no) group by all
) join records using (record_no) group by all order by all
""",  # noqa: S608 - own text
}
"""What is counted, by what it is about."""


def touched_counts(corpus: Corpus, found: Reach) -> list[dict[str, Json]]:
    """Rows of ``erased_uses`` for what an erasure is about to take, with names that hold in every build."""
    if not found.records:
        return []
    facts = Facts.of(corpus)
    going = pa.table(dict(zip(("dataset", "split", "record"), zip(*_going(found), strict=True), strict=True)), _GOING)
    with opened(lineage_files(corpus)) as connection:
        connection.register("going", going)
        connection.execute(_LEAVING)
        answers = {about: connection.sql(sql).to_arrow_table().to_pylist() for about, sql in _COUNTED.items()}
    return [{"about": about, **_named(facts, row)} for about, rows in answers.items() for row in rows]


_GOING: Final = pa.schema([("dataset", pa.string()), ("split", pa.string()), ("record", pa.string())])


def _going(found: Reach) -> Iterator[tuple[str | None, str | None, str]]:
    """The records that go, and, with its name and split, what leaves each dataset."""
    for record_id in found.records:
        yield None, None, record_id.hex()
    for selection in found.datasets:
        for path in selection.paths:
            for record in read_records([path]):
                if not stays(record, found.holds):
                    yield selection.label, split_of(path.name), record.record_id


def _named(facts: Facts, row: Mapping[str, Any]) -> dict[str, Json]:
    teachers, sets = facts.names_of
    told = {name: value for name, value in row.items() if value is not None}
    if "teacher_no" in told:
        told["teacher"] = list(teachers[told.pop("teacher_no")])
    if "terms_set_no" in told:
        told["terms_set_id"] = sets[told.pop("terms_set_no")]
    return told
