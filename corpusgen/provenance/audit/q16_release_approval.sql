-- title: Who approved the release of a student, under which policy, and with which waivers?
-- answer: One row for each release and each role of a teacher that was judged for it, as last decided before:
--   approver, times, digests of the policy and of the terms registry, outcome, and the waivers with who granted them.
-- cannot tell: Whether the approver was entitled to.
-- parameter: student student required | The student
with chosen as (select * from students where student_id = $student::varchar),
decided as (
    select decision_no, outcome, role, decided_time from decisions
    where stage = 'release' and subject_kind = 'student' and subject = $student::varchar
),
lifted as (
    select decision_no, string_agg(waiver_id, ', ' order by waiver_id) as waivers
    from decision_waivers group by decision_no
),
granted as (
    select release_id,
        string_agg(waiver_id || ' by ' || granted_by || ' until ' || expires, ', ' order by waiver_id) as waivers
    from (select release_id, unnest(waiver_ids) as waiver_id from releases) join waivers using (waiver_id)
    group by release_id
)
select release_id as release, releases.name, approver, agents.name as approver_name, released_time, withdrawn_time,
    releases.student_distribution, lower(hex(policy_digest)) as policy_digest,
    lower(hex(registry_digest)) as registry_digest, granted.waivers, decided.outcome, decided.role as teacher_role,
    decided.decided_time, lifted.waivers as waivers_of_decision
from chosen
join releases using (student_no)
left join agents on agents.agent_id = releases.approver
left join granted using (release_id)
left join decided on decided.decided_time <= releases.released_time
left join lifted using (decision_no)
qualify 1 = row_number()
    over (partition by release_id, decided.role order by decided.decided_time desc, decision_no desc)
order by released_time, release, decided_time, teacher_role
