-- title: What holds works of a rightsholder, from sources to released students?
-- answer: One row for each source of the rightsholder and each dataset, student and release its text has reached,
--   with the records that hold it or were made from one that does. A source that reached nothing has one row.
--   erased says how many of its records erasures took; records_in_dataset counts those that it took out of there too.
-- remark: nothing was deleted: corpusgen erase --source ID erases each source; a student keeps what it was trained on
-- cannot tell: Works of the rightsholder inside sources that are told as somebody else's.
-- parameter: rightsholder rightsholder required | The rightsholder
with theirs as (
    select source_no, source_id, licence, acquisition, acquired from sources where rightsholder = $rightsholder::varchar
),
derived as (select distinct source_no, record_no from v_source semi join theirs using (source_no)),
counted as (
    select source_no, count(*) as records from derived join records using (record_no) group by source_no
),
taken as (
    select source_no, dataset_no, sum(records)::bigint as records
    from erased_uses join theirs using (source_id) where about = 'source' group by all
),
reached as (
    select source_no, dataset_no, sum(records)::bigint as records_in_dataset from (
        select source_no, dataset_no, count(*) as records from derived join dataset_records using (record_no) group by all
        union all
        select * from taken where dataset_no is not null
    ) group by all
)
select source_id as source, licence, acquisition, acquired, coalesce(counted.records, 0) as records,
    coalesce(gone.records, 0) as erased, dataset,
    v_dataset.status, v_dataset.created_time, records_in_dataset, student_id as student, student_datasets.role as used_for,
    trained_time, release_id as release, releases.name, released_time, withdrawn_time
from theirs
left join counted using (source_no)
left join (select source_no, records from taken where dataset_no is null) gone using (source_no)
left join reached using (source_no)
left join v_dataset using (dataset_no)
left join student_datasets using (dataset_no)
left join students using (student_no)
left join releases using (student_no)
order by source, dataset, student, used_for, release
