-- title: Which waivers expire soon, and what hangs on them?
-- answer: One row for each waiver that ends within the days asked for (or has ended) and each run, dataset, student
--   or release that was decided with it, with the records involved. A waiver without rows beside it hangs on nothing.
-- cannot tell: Whether it will be renewed.
-- parameter: on date today | Counted from this day
-- parameter: days days 90 | Expiring within so many days
with ending as (
    select waiver_id, granted_by, expires, ended_time, terms_ids from waivers
    where expires <= $on::date + $days::integer
),
lifted as (
    select waiver_id, run_no, subject_kind, subject
    from ending join decision_waivers using (waiver_id) join decisions using (decision_no)
),
asked as (
    select distinct waiver_id, run_no, teacher_no
    from lifted join teachers on teachers.teacher_id = lifted.subject
    where subject_kind = 'teacher'
),
touched as (
    select distinct asked.waiver_id, asked.run_no, made.record_no
    from asked join requests using (run_no, teacher_no) join record_requests made using (request_no)
),
in_datasets as (
    select waiver_id, dataset_no, count(distinct record_no) as records
    from touched join dataset_records using (record_no) group by all
),
hanging as (
    select waiver_id, 'run' as what, run_id as name, count(touched.record_no) as records
    from (select distinct waiver_id, run_no from lifted where run_no is not null) join runs using (run_no)
    left join touched using (waiver_id, run_no) group by all
    union all
    select waiver_id, 'dataset', dataset, records from in_datasets join v_dataset using (dataset_no)
    union all
    select waiver_id, 'student', student_id, max(records)
    from in_datasets join student_datasets using (dataset_no) join students using (student_no) group by all
    union all
    select waiver_id, 'release', release_id, null from ending join releases on list_contains(waiver_ids, waiver_id)
)
select waiver_id as waiver, granted_by, expires, (expires - $on::date)::integer as days_left,
    ended_time is not null as taken_back, array_to_string(terms_ids, ', ') as terms, what, name, records
from ending left join hanging using (waiver_id)
order by expires, waiver, what, name
