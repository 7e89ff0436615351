-- title: Which released students touched a provider's output, in which role, and how many records?
-- answer: One row for each release, dataset, role and set of terms. The provider's output is in the records
--   themselves or in records they were made from; judging and filtering count as much as writing. No rows: none of
--   its output is known to have reached a release. A row with an erasure counts what that took out; in it a record
--   counts once for each teacher and model.
-- cannot tell: Whether output of the provider stands in a source that somebody else generated (see duties).
-- parameter: provider provider required | Whose output: who runs the service or whose terms bind it
-- parameter: terms terms any | Only output made under this version of the terms
with bound as (
    select terms_set_no, string_agg(terms_id, ', ' order by terms_id) as terms,
        bool_or(terms.provider = $provider::varchar) as theirs, bool_or(terms_id = $terms::varchar) as named
    from terms_sets left join terms using (terms_id)
    group by terms_set_no
),
asked as (
    select teacher_no, terms_set_no, bound.terms
    from v_asked
    join teachers using (teacher_no)
    left join bound using (terms_set_no)
    where (teachers.provider = $provider::varchar or bound.theirs) and ($terms::varchar is null or bound.named)
),
touched as (
    select distinct used.record_no, used.role, asked.terms
    from v_use used join asked using (teacher_no, terms_set_no)
),
counted as (
    select dataset_no, role, terms, count(*) as records
    from touched join dataset_records using (record_no)
    group by all
),
taken as (
    select dataset_no, role, asked.terms, sum(records)::bigint as records, erasure_no
    from erased_uses join asked using (teacher_no, terms_set_no)
    where about = 'use' and dataset_no is not null
    group by all
),
every_use as (select *, null as erasure_no from counted union all select * from taken)
select releases.release_id as release, releases.name, student_id as student, releases.released_time,
    releases.withdrawn_time, dataset, student_datasets.role as used_for, every_use.role as teacher_role, every_use.terms,
    every_use.records, erasure_id as erasure
from every_use
join student_datasets using (dataset_no)
join v_dataset using (dataset_no)
join students using (student_no)
join releases using (student_no)
left join erasures using (erasure_no)
order by released_time, release, dataset, used_for, teacher_role, terms, erasure nulls first
