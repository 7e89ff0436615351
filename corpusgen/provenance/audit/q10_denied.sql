-- title: What did the policy stop, by which rule, and which spend did that avoid?
-- answer: One row for each task, teacher or other subject, role and stage that was stopped, with the rules, the
--   documents and how often. avoided_microusd is what the stopped plan would have cost as last estimated; empty:
--   unknown, or later_allowed, because then it was only put off. all_avoided_microusd adds up every subject once.
-- cannot tell: What people did not even plan because of the terms.
-- parameter: since date any | Only from this day on
with stopped as (
    select decisions.*, runs.task from decisions left join runs using (run_no)
    where outcome <> 'allow' and ($since::date is null or decided_time::date >= $since::date)
),
why as (
    select decision_no, string_agg(distinct rule, ', ' order by rule) as rules,
        string_agg(distinct terms_id, ', ' order by terms_id) as terms
    from decision_reasons join stopped using (decision_no)
    where decision_reasons.outcome <> 'allow'
    group by decision_no
),
grouped as (
    select stage, task, subject_kind, subject, role,
        arg_max(outcome, decision_no) as outcome, arg_max(rules, decision_no) as rules,
        arg_max(terms, decision_no) as terms, count(*) as times,
        min(decided_time) as first_time, max(decided_time) as last_time,
        arg_max(estimated_microusd, decision_no) as estimated, max(decision_no) as last_no
    from stopped left join why using (decision_no)
    group by all
),
judged as (
    select grouped.* exclude (estimated, last_no),
        exists (
            from decisions later left join runs using (run_no)
            where later.outcome = 'allow' and later.decision_no > last_no and later.stage = grouped.stage
                and later.subject_kind = grouped.subject_kind and later.subject = grouped.subject
                and later.role is not distinct from grouped.role and runs.task is not distinct from grouped.task
        ) as later_allowed,
        estimated
    from grouped
)
select * exclude (estimated), case when not later_allowed then estimated end as avoided_microusd,
    sum(case when not later_allowed then estimated end) over ()::bigint as all_avoided_microusd
from judged
order by avoided_microusd desc nulls last, stage, task, subject, role
