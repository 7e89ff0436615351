-- title: Which records of a dataset have incomplete provenance?
-- answer: No rows: every record has a request, a teacher, a source, and terms that somebody wrote down, and every
--   parent is known. Each row is a record and what it lacks; a release needs none.
-- cannot tell: Whether what is written down is true.
-- passes when empty: yes
-- parameter: dataset dataset required | The dataset
with inside as (
    select record_no from dataset_records join v_dataset using (dataset_no) where dataset = $dataset::varchar
),
asked as (
    select record_no, request_no from record_requests semi join inside using (record_no)
),
known as (select request_no from requests),
bare as (
    select request_no from v_requests
    where terms_set_no not in (select terms_set_no from terms_sets join terms using (terms_id))
        or teacher_no not in (select teacher_no from teachers)
),
lacking as (
    select record_no, 'request' as lacks
    from inside anti join (select record_no from asked semi join known using (request_no)) using (record_no)
    union
    select record_no, 'terms or teacher' from asked semi join bare using (request_no)
    union
    select record_no, 'source' from inside anti join record_sources using (record_no)
    union
    select record_no, 'parent' from (
        select record_no, parent_no from record_parents semi join inside using (record_no)
    ) made anti join records on records.record_no = made.parent_no
    union
    select record_no, 'licence' from records semi join inside using (record_no)
    where licence in ('', 'NOASSERTION', 'NONE')
)
select record, lacks, shard from lacking join v_record using (record_no)
order by record, lacks
