-- title: Which students did a provider judge, filter, label or select, though none of its text is in them?
-- answer: One row for each student, dataset and role. The student was trained on no record whose text (response,
--   rationale, paraphrase, simulated user) the provider wrote, itself or through a parent; yet its output had a part
--   in which records there are, how they are labelled or which student was chosen. A row with an
--   erasure counts what that took out; it wrote if it had written any of that.
-- cannot tell: What people decided after reading the provider's answers elsewhere.
-- parameter: provider provider required | The provider
with asked as (
    select teacher_no, terms_set_no from v_asked
    where teacher_no in (select teacher_no from teachers where provider = $provider::varchar)
        or terms_set_no in (
            select terms_set_no from terms_sets join terms using (terms_id) where provider = $provider::varchar
        )
),
touched as (select distinct record_no, role from v_use semi join asked using (teacher_no, terms_set_no)),
counted as (
    select dataset_no, role, null as erasure_no, count(*) as records
    from touched join dataset_records using (record_no) group by all
    union all
    select dataset_no, role, erasure_no, sum(records)::bigint
    from erased_uses semi join asked using (teacher_no, terms_set_no)
    where about = 'use' and dataset_no is not null group by all
),
parts as (
    select student_no, dataset_no, student_datasets.role as used_for, counted.role as teacher_role, counted.records, erasure_no
    from counted join student_datasets using (dataset_no)
),
written as (
    select distinct student_no from parts
    where used_for = 'train' and teacher_role in ('response', 'rationale', 'paraphrase', 'simulated_user')
)
select student_id as student, dataset, used_for, teacher_role, parts.records, erasure_id as erasure
from parts anti join written using (student_no) join students using (student_no) join v_dataset using (dataset_no)
left join erasures using (erasure_no)
order by student, dataset, used_for, teacher_role, erasure nulls first
