-- title: Which requests were sent after their terms had changed, or on terms nobody had reviewed lately?
-- answer: One row for each teacher, document and problem: superseded (a later version was in force on the day), not
--   yet in force, review too old, or no review before it is known here. Replays were not sent and are not counted.
-- cannot tell: A change of terms nobody has entered into the registry.
-- parameter: days days 90 | How old a review of terms that can change may be
with sent as (
    select teacher_no, terms_set_no, sent_time::date as sent_on, count(*) as requests,
        min(sent_time) as first_sent, max(sent_time) as last_sent
    from requests where not from_cache
    group by all
),
bound as (select sent.*, terms.* from sent join terms_sets using (terms_set_no) join terms using (terms_id)),
reviews as (
    select terms_id, sent_on, max(terms_reviews.reviewed) as last_review
    from (select distinct terms_id, sent_on from bound where review_expires)
    join terms_reviews using (terms_id)
    where terms_reviews.reviewed <= sent_on
    group by all
),
found as (
    select bound.*, case
        when superseded <= sent_on then 'superseded'
        when effective > sent_on then 'not yet in force'
        when not review_expires then null
        when last_review is null then 'no review before it is known'
        when last_review < sent_on - $days::integer then 'review too old'
    end as problem
    from bound left join reviews using (terms_id, sent_on)
)
select teachers.teacher_id as teacher, terms_id as terms, problem, sum(requests)::bigint as requests,
    min(first_sent) as first_sent, max(last_sent) as last_sent, max(superseded) as superseded,
    max(effective) as effective, max(reviewed) as reviewed
from found join teachers using (teacher_no)
where problem is not null
group by all
order by teacher, terms, problem
