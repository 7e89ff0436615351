-- title: What is derived from a source: records, shards, datasets, students, releases?
-- answer: The records that name the source or were made from one that does, then how many erasures took; then the
--   files, datasets, students and releases they are in, with what an erasure took counted in; then erasures of the
--   source or of single items of it. Nothing is deleted here: corpusgen erase --source does that. A student stays what
--   it was trained on: erasing does not reach its weights.
-- remark: nothing was deleted: corpusgen erase --source ID erases; a student keeps what it was trained on
-- cannot tell: Copies outside this corpus, and text of the source that came in by another way.
-- parameter: source source required | The source
-- parameter: list count 20 | At most so many record ids
with origin as (select source_no, source_id from sources where source_id = $source::varchar),
derived as (
    select record_no, bool_and(ancestor_no <> record_no) as by_parents
    from v_source semi join origin using (source_no)
    group by record_no
),
told as (
    select record_no, record, shard, by_parents from derived join v_record using (record_no)
),
taken as (select * from erased_uses where about = 'source' and source_id = $source::varchar),
inside as (
    select dataset_no, count(*) as records, 0 as erased from dataset_records semi join derived using (record_no)
    group by dataset_no
    union all
    select dataset_no, 0, sum(records) from taken where dataset_no is not null group by dataset_no
),
in_datasets as (
    select dataset_no, sum(records + erased)::bigint as records, sum(erased)::bigint as erased
    from inside group by dataset_no
),
found as (
    select 1 as part, 'live records' as what, (select any_value(source_id) from origin) as name, count(*) as records,
        count(*) filter (by_parents) as by_parents, '' as remark
    from told
    union all
    select 2, 'erased records', (select any_value(source_id) from origin), coalesce(sum(records), 0)::bigint,
        coalesce(sum(by_parents), 0)::bigint, 'only their number is known'
    from taken where dataset_no is null
    union all
    (
        select 3, 'record', record, 1, by_parents::integer, coalesce(shard, '') from told
        order by record limit $list::bigint
    )
    union all
    select 4, 'shard', shard, count(*), count(*) filter (by_parents), '' from told
    where shard is not null group by shard
    union all
    select 5, 'dataset', dataset, records, null, status || if(erased > 0, ', erased: ' || erased, '') from in_datasets join v_dataset using (dataset_no)
    union all
    select 6, 'student', student_id, max(records), null,
        'retrain or retire: used for ' || string_agg(distinct role, ', ' order by role)
    from in_datasets join student_datasets using (dataset_no) join students using (student_no) group by student_id
    union all
    select 7, 'release', release_id || ' ' || releases.name, max(records), null,
        case when withdrawn_time is null then 'released' else 'withdrawn' end
    from in_datasets join student_datasets using (dataset_no) join releases using (student_no)
    group by release_id, releases.name, withdrawn_time
    union all
    select 8, 'erasure', erasure_id, records, null,
        'datasets revoked: ' || coalesce(nullif(array_to_string(datasets, ', '), ''), 'none')
        || '; students to retrain or retire: ' || coalesce(nullif(array_to_string(students, ', '), ''), 'none')
    from erasures where selector = 'source' and subject = $source::varchar
)
select * exclude (part) from found order by part, name
