-- title: Which requests were answered by another model than the one whose terms were checked?
-- answer: One row for each teacher and name in the answer that is not the model's own: how many requests and records.
--   looks_like says dated version where the name is the model's with a date or number behind it; anything else is
--   another model, and its terms may be others.
-- cannot tell: A provider that gives the old name to another model; answers that named no model.
-- parameter: teacher teacher any | Only this teacher
with served as (
    select request_no, teacher_no, model_served, sent_time from requests join teachers using (teacher_no)
    where model_served is not null and model_served <> teachers.model
        and ($teacher::varchar is null or teacher_id = $teacher::varchar)
)
select teacher_id as teacher, teachers.model as model_checked, model_served,
    case
        when starts_with(model_served, teachers.model)
            and regexp_full_match(substr(model_served, length(teachers.model) + 1), '[-@:]v?[0-9][0-9.-]*')
        then 'dated version' else 'another model'
    end as looks_like,
    count(distinct request_no) as requests, count(distinct record_no) as records,
    min(sent_time) as first_sent, max(sent_time) as last_sent
from served join teachers using (teacher_no) left join record_requests using (request_no)
group by all
order by looks_like, teacher, model_served
