-- title: Which sources are under share-alike, non-commercial, no-derivatives or unknown licences, and where did they
--   go?
-- answer: One row for each such source, with the records that hold it or were made from one that does, and the
--   datasets and students they are in.
-- cannot tell: A source whose licence was told wrongly.
-- parameter: dataset dataset any | Only sources that reached this dataset
with restricted as (
    select source_no, source_id, sources.licence, coalesce(known, false) as known,
        coalesce(share_alike, false) as share_alike, coalesce(non_commercial, false) as non_commercial,
        coalesce(no_derivatives, false) as no_derivatives
    from sources left join licences using (licence)
    where not coalesce(known, false) or share_alike or non_commercial or no_derivatives
),
derived as (
    select distinct source_no, record_no from v_source semi join restricted using (source_no)
),
counted as (select source_no, count(*) as records from derived group by source_no),
reached as (select distinct source_no, dataset_no from derived join dataset_records using (record_no)),
named as (
    select source_no, string_agg(dataset, ', ' order by dataset) as datasets,
        bool_or(dataset = $dataset::varchar) as asked_for
    from reached join v_dataset using (dataset_no) group by source_no
),
taught as (
    select source_no, string_agg(distinct student_id, ', ' order by student_id) as students
    from reached join student_datasets using (dataset_no) join students using (student_no) group by source_no
)
select source_id as source, licence, known, share_alike, non_commercial, no_derivatives,
    coalesce(records, 0) as records, datasets, students
from restricted left join counted using (source_no) left join named using (source_no) left join taught using (source_no)
where $dataset::varchar is null or asked_for
order by source
