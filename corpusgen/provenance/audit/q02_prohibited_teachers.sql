-- title: Did anything from a teacher whose terms prohibit training enter a student, by parents and judges too?
-- answer: No rows: nothing did, as far as this corpus knows. Each row is a dataset the student has seen, a role and a
--   terms document that prohibits it for this student, with the number of records and how many of them only through a
--   parent. Terms that nobody knows here any more count as prohibiting; finding says which of the two it is. A row
--   with an erasure counts what that took out of the dataset after or before the student saw it. What the student may
--   compete with decides which of the document's two values counts; unknown counts as yes. A waiver is named, and
--   changes nothing.
-- cannot tell: Terms that were read wrongly, outputs that a source was generated with (see duties), base weights.
-- passes when empty: yes
-- parameter: student student required | The student
with asked as (
    select teacher_no, terms_set_no, terms_sets.terms_id, coalesce(outputs_train = 'prohibited', true) as always,
        case when terms.terms_id is null then 'terms not known here' else 'prohibited' end as finding
    from v_asked
    left join terms_sets using (terms_set_no)
    left join terms on terms.terms_id = terms_sets.terms_id
    where terms.terms_id is null or outputs_train = 'prohibited' or outputs_train_competing = 'prohibited'
),
seen as (
    select dataset_no, student_datasets.role as used_for, student_competes
    from students join student_datasets using (student_no)
    where student_id = $student::varchar
),
touched as (
    select used.record_no, used.role, used.teacher_no, asked.terms_id, asked.always, asked.finding,
        bool_and(used.ancestor_no <> used.record_no) as by_parent
    from v_use used join asked using (teacher_no, terms_set_no)
    group by all
),
found as (
    select dataset_no, used_for, touched.role, teacher_no, terms_id, finding, null as erasure_no, count(*) as records,
        count(*) filter (by_parent) as by_parents
    from touched
    join dataset_records using (record_no)
    join seen using (dataset_no)
    where touched.always or seen.student_competes <> 'no'
    group by all
    union all
    select dataset_no, used_for, taken.role, teacher_no, terms_id, finding, erasure_no, sum(records)::bigint,
        sum(by_parents)::bigint
    from erased_uses taken
    join asked using (teacher_no, terms_set_no)
    join seen using (dataset_no)
    where taken.about = 'use' and (asked.always or seen.student_competes <> 'no')
    group by all
)
select dataset, used_for, found.role as teacher_role, teachers.provider, teachers.teacher_id as teacher,
    terms_id as terms,
    (
        select string_agg(waiver_id, ', ' order by waiver_id) from waivers
        where list_contains(waivers.terms_ids, found.terms_id)
    ) as waivers,
    found.records, found.by_parents, found.finding, erasure_id as erasure
from found join v_dataset using (dataset_no) join teachers using (teacher_no) left join erasures using (erasure_no)
order by dataset, used_for, teacher_role, teacher, terms, erasure nulls first
