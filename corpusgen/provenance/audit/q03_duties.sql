-- title: Which duties does a dataset bring, for itself and for a student trained on it?
-- answer: One row for each duty and document that asks for it: attribution, naming, notices, flow-down, labels.
--   binds: yes for terms of teachers and licences of sources; base for weights a student began with; notice for terms
--   of models that wrote a source, which bind whoever ran them and may bind you. Of terms that are not known here the
--   duty is unknown.
-- cannot tell: Duties a machine cannot check; whether a duty was carried out (see the release).
-- parameter: dataset dataset required | The dataset
-- parameter: student student any | Also the duties of this student's base weights
with chosen as (select dataset_no from v_dataset where dataset = $dataset::varchar),
inside as (select record_no from dataset_records join chosen using (dataset_no)),
reached as (select distinct terms_set_no from v_use semi join inside using (record_no)),
used as (select distinct source_no from v_source semi join inside using (record_no)),
bearing as (
    select distinct terms_id, 'yes' as binds from reached join terms_sets using (terms_set_no)
    union
    select unnest(base_terms), 'base' from students where student_id = $student::varchar
    union
    select unnest(generated_by), 'notice' from sources semi join used using (source_no)
),
of_sources as (
    select source_id, licences.*
    from used join sources using (source_no) join licences using (licence)
),
base as (
    select 'the base weights of ' || student_id as source_id, licences.*
    from students join licences on licences.licence = students.base_licence
    where student_id = $student::varchar
),
licensed as (
    select *, 'yes' as binds from of_sources
    union all
    select *, 'base' from base
)
select duty, applies_to, terms_id as asked_by, text, binds from bearing join terms_duties using (terms_id)
union
select 'unknown', 'dataset', terms_id, 'terms not known here', binds from bearing anti join terms using (terms_id)
union
select 'attribution', 'dataset', licence, 'credit ' || string_agg(source_id, ', ' order by source_id), binds
from licensed where attribution group by licence, binds
union
select 'notice_file', 'dataset', licence, notice, binds from licensed where notice is not null
union
select 'share_alike', 'dataset', licence, 'publish what derives from it under ' || licence, binds
from licensed where share_alike
union
select 'non_commercial', 'dataset', licence, 'non-commercial use only', binds from licensed where non_commercial
union
select 'no_derivatives', 'dataset', licence, 'no derivatives may be passed on', binds from licensed where no_derivatives
order by duty, applies_to, asked_by, binds, text
