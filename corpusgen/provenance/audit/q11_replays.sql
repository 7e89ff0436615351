-- title: Which cached answers were first given under other terms than those of the run that used them again?
-- answer: One row for each run, teacher and pair of sets: how many answers and records, which documents only the
--   origin had and which only the replaying run. The origin's terms govern the answer.
-- cannot tell: Replays whose origin left no terms with the answer; they count as other terms.
-- parameter: teacher teacher any | Only this teacher
with replayed as (
    select request_no, run_no, teacher_no, terms_set_no, origin_terms_set_no, origin_sent_time
    from requests
    where from_cache and origin_terms_set_no is distinct from terms_set_no
),
counted as (
    select run_no, teacher_no, terms_set_no, origin_terms_set_no, count(distinct request_no) as answers,
        count(distinct record_no) as records, min(origin_sent_time) as first_sent, max(origin_sent_time) as last_sent
    from replayed left join record_requests using (request_no)
    group by all
),
listed as (select terms_set_no, list(terms_id order by terms_id) as documents from terms_sets group by terms_set_no)
select run_id as run, teacher_id as teacher, answers, records,
    array_to_string(
        list_filter(coalesce(origin.documents, []), lambda one: not list_contains(coalesce(replay.documents, []), one)), ', '
    ) as only_origin,
    array_to_string(
        list_filter(coalesce(replay.documents, []), lambda one: not list_contains(coalesce(origin.documents, []), one)), ', '
    ) as only_replay,
    first_sent, last_sent
from counted
join runs using (run_no)
join teachers using (teacher_no)
left join listed origin on origin.terms_set_no = counted.origin_terms_set_no
left join listed replay on replay.terms_set_no = counted.terms_set_no
where $teacher::varchar is null or teacher_id = $teacher::varchar
order by run, teacher, only_origin, only_replay
