-- title: Which licences feed a dataset, how many records each, and which expression covers the whole?
-- answer: One row for each licence of a source or of a teacher's terms, with the records it reaches and the sources
--   or documents that bring it, and one for each expression a record was stored with; then the whole: every licence
--   found here joined by AND, and the expression the dataset was sealed with, where it was. known is false where
--   nobody has said what a licence allows. Terms that are not known here are named, as NOASSERTION.
-- cannot tell: Whether licences are compatible; that is the policy's answer (corpusgen policy explain).
-- parameter: dataset dataset required | The dataset
with chosen as (select * from v_dataset where dataset = $dataset::varchar),
inside as (select record_no from dataset_records join chosen using (dataset_no)),
of_sources as (
    select licence, count(distinct record_no) as records, count(distinct source_no) as through
    from v_source semi join inside using (record_no)
    join sources using (source_no)
    group by licence
),
documents as (
    select terms_set_no, terms_id, coalesce(spdx, 'NOASSERTION') as spdx,
        case when spdx is null then 'terms not known here: ' || terms_id else 'terms' end as comes_from
    from terms_sets left join terms using (terms_id)
),
reached as (select distinct record_no, terms_set_no from v_use semi join inside using (record_no)),
of_terms as (
    select comes_from, spdx as licence, count(distinct record_no) as records, count(distinct terms_id) as through
    from reached join documents using (terms_set_no)
    group by all
),
stored as (
    select licence, count(*) as records from records semi join inside using (record_no) group by licence
),
whole as (select count(*) as records from inside),
found as (
    select 1 as part, 'source' as comes_from, * from of_sources
    union all
    select 2, * from of_terms
    union all
    select 3, 'stored with the record', licence, records, null from stored
    union all
    select 4, 'whole, as found', string_agg(distinct licence, ' AND ' order by licence), (select records from whole), null
    from (select licence from of_sources union select licence from of_terms) having count(*) > 0
    union all
    select 5, 'whole, as sealed', effective_licence, (select records from whole), null
    from chosen where effective_licence is not null
)
select comes_from, licence, licences.known, share_alike, non_commercial, no_derivatives, attribution, records, through
from found left join licences using (licence)
order by part, records desc, licence
