-- title: Which terms, word for word, were in force when a record was made?
-- answer: One row for each request the record comes from (itself or through a parent), its role, and each terms
--   document that governs it: version, digest of the text, and whether the text is kept here. text_taken says when
--   the text was read: text that was only read after the request may have changed in between. A replay is governed by
--   the terms of the request that was really sent.
-- cannot tell: What a text said that nobody kept: then text_held is false.
-- parameter: record record required | The record's id
with chosen as (select record_no from records where record_id = unhex($record::varchar)),
line as (select ancestor_no from v_closure where record_no = (select record_no from chosen)),
asked as (
    select record_no as ancestor_no, role, request_no from record_requests
    where record_no in (select ancestor_no from line)
),
made as (
    select asked.*, request.terms_set_no, request.sent_time, request.from_cache, teachers.teacher_id
    from asked
    join (from v_requests where request_no in (select request_no from asked)) request using (request_no)
    join teachers using (teacher_no)
),
keys as (select request_no, request_key from requests where request_no in (select request_no from asked))
select made.role as teacher_role, made.teacher_id as teacher, lower(hex(keys.request_key)) as request, made.sent_time,
    made.from_cache as replayed, terms_sets.terms_id as terms, terms.title, terms.version, terms.effective,
    terms.superseded,
    lower(hex(coalesce(earlier.text_sha256, terms.text_sha256, later.text_sha256))) as text_sha256,
    coalesce(earlier.taken_time, case when terms.text_sha256 is null then later.taken_time end) as text_taken,
    coalesce(earlier.held, case when terms.text_sha256 is null then later.held end, false) as text_held,
    made.ancestor_no not in (select record_no from chosen) as by_parent
from made
join keys using (request_no)
left join terms_sets on terms_sets.terms_set_no = made.terms_set_no
left join terms on terms.terms_id = terms_sets.terms_id
left join lateral (
    select text_sha256, taken_time, held from terms_texts
    where terms_texts.terms_id = terms_sets.terms_id and taken_time <= made.sent_time
    order by taken_time desc limit 1
) earlier on true
left join lateral (
    select text_sha256, taken_time, held from terms_texts
    where terms_texts.terms_id = terms_sets.terms_id and taken_time > made.sent_time
    order by taken_time limit 1
) later on true
order by by_parent, sent_time, request, teacher_role, terms
