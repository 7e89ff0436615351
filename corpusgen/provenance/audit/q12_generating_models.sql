-- title: Which models and versions generated a dataset, and what share of records and tokens did each?
-- answer: One row for each teacher and model it answered as: the records whose own text, labels or preferences it
--   made, their output tokens, and their shares of the dataset. by_parents counts further records that were made from
--   such records. A record that two models wrote counts for both, so shares may add up to more than 1. Judging and
--   filtering are left out here (see judged-only). Text that was imported has the route imported, and who wrote it is
--   not known here. A row with an erasure counts what that took out, with shares of what there was before. This is the
--   table of section 2.5 of the EU template.
-- cannot tell: Which models wrote the sources, beyond what is told of them (see duties).
-- parameter: dataset dataset required | The dataset
with inside as (
    select record_no, output_tokens
    from records
    where record_no in (
        select record_no from dataset_records join v_dataset using (dataset_no) where dataset = $dataset::varchar
    )
),
taken as (
    select erased_uses.* from erased_uses join v_dataset using (dataset_no) where dataset = $dataset::varchar
),
whole as (
    select sum(records) as records, sum(tokens) as tokens from (
        select count(*) as records, sum(output_tokens) as tokens from inside
        union all
        select sum(records), sum(output_tokens) from taken where about = 'record'
    )
),
written as (
    select distinct used.record_no, used.ancestor_no <> used.record_no as by_parent, used.teacher_no,
        coalesce(requests.model_served, '') as served
    from v_use used semi join inside using (record_no)
    join requests using (request_no)
    where used.role not in ('judge', 'filter')
),
once as (
    select record_no, teacher_no, served, bool_and(by_parent) as by_parent from written group by all
),
counted as (
    select teacher_no, served, null as erasure_no, count(*) filter (not by_parent) as records,
        coalesce(sum(output_tokens) filter (not by_parent), 0)::bigint as output_tokens,
        count(*) filter (by_parent) as by_parents
    from once join inside using (record_no)
    group by all
    union all
    select teacher_no, coalesce(model_served, ''), erasure_no, sum(records - by_parents)::bigint,
        sum(output_tokens)::bigint, sum(by_parents)::bigint
    from taken where about = 'use' and role not in ('judge', 'filter')
    group by all
)
select teachers.provider, teachers.teacher_id as teacher, teachers.model, nullif(served, '') as model_served,
    teachers.revision, teachers.route, teachers.host, counted.records,
    round(counted.records / nullif(whole.records, 0), 6) as share_of_records, counted.output_tokens,
    round(counted.output_tokens / nullif(whole.tokens, 0), 6) as share_of_tokens, counted.by_parents,
    erasure_id as erasure
from counted join teachers using (teacher_no) cross join whole left join erasures using (erasure_no)
order by records desc, output_tokens desc, teacher, model_served, erasure nulls first
