-- One row an instalment whose outcome is known: 1 as soon as a payment within 30 days of the due time is known,
-- 0 when 33 days have passed without one (30, and 3 in which a payment's row may still arrive).
with outcomes as (
    select
        account_id,
        due_at,
        max(created_timestamp) filter (where kind = 'paid' and event_timestamp <= due_at + interval '30 days') as paid_known_at
    from instalments
    group by account_id, due_at
    having count(*) filter (where kind = 'due') > 0
)
select
    account_id,
    due_at as event_timestamp,
    coalesce(paid_known_at, due_at + interval '33 days') as label_timestamp,
    case when paid_known_at is null then 0e0 else 1e0 end as label
from outcomes
where paid_known_at is not null or due_at < getvariable('as_of') - interval '33 days'
