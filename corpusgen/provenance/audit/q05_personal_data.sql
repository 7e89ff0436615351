-- title: What personal data went to which provider and region, when, under which agreement and retention?
-- answer: One row for each provider, host, region, class of data and agreement: how many requests were sent, from
--   when to when. agreement is empty where none that covers host, class, region and day is known. replays were
--   answered from a cache: nothing was sent.
-- cannot tell: Personal data nobody found (names and addresses are not looked for), what a provider really kept.
-- parameter: provider provider any | Only this provider
-- parameter: since date any | Only from this day on
-- parameter: until date any | Only up to this day
with sent as (
    select teacher_no, coalesce(requests.region, teachers.region) as region, personal_data, from_cache,
        sent_time::date as sent_on, count(*) as requests, min(sent_time) as first_sent, max(sent_time) as last_sent
    from requests join teachers using (teacher_no)
    where personal_data is not null and personal_data <> ''
        and ($provider::varchar is null or teachers.provider = $provider::varchar)
        and ($since::date is null or sent_time::date >= $since::date)
        and ($until::date is null or sent_time::date <= $until::date)
    group by all
),
classed as (select * exclude (personal_data), trim(unnest(string_split(personal_data, ','))) as class from sent)
select teachers.provider, teachers.teacher_id as teacher, teachers.host, classed.region, classed.class,
    agreement_id as agreement, agreements.kind as agreement_kind, agreements.retention_days, teachers.unpaid,
    coalesce(sum(requests) filter (not from_cache), 0)::bigint as requests,
    coalesce(sum(requests) filter (from_cache), 0)::bigint as replays,
    min(first_sent) filter (not from_cache) as first_sent, max(last_sent) filter (not from_cache) as last_sent
from classed
join teachers using (teacher_no)
left join agreements on agreements.host = teachers.host
    and (len(agreements.classes) = 0 or list_contains(agreements.classes, classed.class))
    and (len(agreements.regions) = 0 or coalesce(list_contains(agreements.regions, classed.region), false))
    and (agreements.valid_from is null or agreements.valid_from <= classed.sent_on)
    and (agreements.valid_until is null or classed.sent_on <= agreements.valid_until)
group by all
order by provider, teacher, region, class, agreement
