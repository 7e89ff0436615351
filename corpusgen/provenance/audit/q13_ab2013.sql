-- title: What does California's AB 2013 sheet say about the data of a student?
-- answer: One row for each of the twelve items of Civil Code 3111(a), over all datasets the student has seen, with
--   what this corpus can say. What erasures took since is told of in items 1, 3, 4, 5, 6, 9 and 12, other items
--   say what is left. Where value is empty, a person must fill it in.
-- remark: a draft for a person: empty values must be filled in, and all of them read
-- cannot tell: Purposes, and anything a source was not described with; the sheet is a draft for a person.
-- parameter: student student required | The student
with seen as (
    select dataset_no, min(first_used_time) as first_used
    from student_datasets join students using (student_no) where student_id = $student::varchar group by dataset_no
),
inside as (
    select distinct record_no from dataset_records join seen using (dataset_no)
),
taken as (select erased_uses.* from erased_uses join seen using (dataset_no)),
used as (
    select sources.* from sources
    where source_no in (select source_no from v_source semi join inside using (record_no))
        or source_id in (select source_id from taken where about = 'source')
),
gone as (
    select sum(records) as records, sum(input_tokens + output_tokens) as tokens from taken where about = 'record'
    having sum(records) > 0
),
gone_kinds as (select kind, sum(records) as records from taken where about = 'record' group by kind),
gone_judged as (
    select sum(records) as records from taken where about = 'use' and role in ('judge', 'filter') having sum(records) > 0
),
rows_inside as (
    select records.* from records semi join inside using (record_no)
),
kinds as (select kind, count(*) as records from rows_inside group by kind),
figures as (
    select count(*) as records, sum(input_tokens + output_tokens) as tokens, min(created_time) as earliest,
        max(created_time) as latest, count(*) filter (personal_data is not null and personal_data <> '') as personal
    from rows_inside
),
makers as (
    select distinct teachers.provider || ' ' || teachers.model as maker
    from (
        select distinct teacher_no
        from record_requests semi join inside using (record_no) join v_requests using (request_no)
        union
        select teacher_no from taken where about = 'use'
    )
    join teachers using (teacher_no)
    where teachers.route <> 'imported'
)
select 1 as item, 'sources or owners of the datasets' as asked,
    (
        select string_agg(source_id || ' (' || coalesce(rightsholder, 'owner not told') || ')', ', ' order by source_id)
        from used
    ) as value
union all
select 2, 'how the datasets further the intended purpose', null
union all
select 3, 'number of data points',
    (select records::varchar || ' records, ' || coalesce(tokens, 0)::varchar || ' tokens' from figures)
        || coalesce((select '; erased since: ' || records::varchar || ' records, ' || tokens::varchar || ' tokens' from gone), '')
union all
select 4, 'types of data points', concat_ws(
        '; ', (select string_agg(kind || ': ' || records, ', ' order by kind) from kinds),
        (select 'erased since: ' || string_agg(kind || ': ' || records, ', ' order by kind) from gone_kinds having count(*) > 0)
    )
union all
select 5, 'copyright, trademark, patent or public domain',
    (
        select string_agg(told, ', ' order by told) from (
            select coalesce(copyright_status, 'not told') || ': ' || count(*) || if(count(*) = 1, ' source', ' sources') as told
            from used group by copyright_status
        )
    )
union all
select 6, 'purchased or licensed',
    (
        select string_agg(told, ', ' order by told) from (
            select coalesce(acquisition, 'not told') || ': ' || count(*) || if(count(*) = 1, ' source', ' sources') as told
            from used group by acquisition
        )
    )
union all
select 7, 'personal information',
    (select personal::varchar || ' records' from figures) || '; classes told of sources: ' || coalesce(
        (select string_agg(distinct class, ', ' order by class) from (select unnest(personal_data) as class from used)), 'none'
    )
union all
select 8, 'aggregate consumer information', null
union all
select 9, 'cleaning, processing or other modification',
    (
        select 'records made from other records: ' || count(distinct record_no)
        from record_parents semi join inside using (record_no)
    ) || '; judged or filtered: ' || (
        select count(distinct record_no) from record_requests semi join inside using (record_no) where role in ('judge', 'filter')
    ) || coalesce((select '; erased since, by judge and role: ' || records::varchar from gone_judged), '')
union all
select 10, 'time of collection, and whether it is ongoing',
    (select 'from ' || earliest::date || ' to ' || latest::date from figures)
union all
select 11, 'dates of first use',
    (
        select string_agg(dataset || ': ' || first_used::date, ', ' order by dataset)
        from seen join v_dataset using (dataset_no)
    )
union all
select 12, 'synthetic data generation',
    coalesce((select 'yes: ' || string_agg(maker, ', ' order by maker) from makers), 'no')
order by item
