-- One row an account that had an instalment due in the last 90 days: how it paid, and what came of contacting it.
-- A payment counts by the due time of its instalment; an instalment is old when more than 30 days have passed since.
with events as (
    select
        account_id,
        kind,
        instalment,
        due_at,
        amount,
        days_late,
        event_timestamp,
        due_at < getvariable('as_of') - interval '30 days' as old,
        due_at >= getvariable('as_of') - interval '35 days' as last_35d,
        due_at >= getvariable('as_of') - interval '60 days' as last_60d
    from instalments
    where due_at >= getvariable('as_of') - interval '90 days'
),
unpaid as (
    select account_id, due_at
    from events
    where not old
    group by account_id, due_at
    having count(*) filter (where kind = 'paid') = 0
),
owing as (
    select account_id, count(*) as open_30d, min(due_at) as oldest
    from unpaid
    group by account_id
),
paying as (
    select
        account_id,
        count(*) filter (where kind = 'due') as dues_90d,
        count(*) filter (where kind = 'due' and old) as old_90d,
        count(*) filter (where kind = 'paid' and old and days_late < 30) as kept_90d,
        count(*) filter (where kind = 'due' and old and last_60d) as old_60d,
        count(*) filter (where kind = 'paid' and old and last_60d and days_late < 30) as kept_60d,
        avg(days_late) filter (where kind = 'paid') as days_late_avg_90d,
        avg(days_late) filter (where kind = 'paid' and last_35d) as days_late_avg_35d,
        median(days_late) filter (where kind = 'paid') as days_late_median_90d,
        stddev_samp(days_late) filter (where kind = 'paid') as days_late_sd_90d,
        arg_max(days_late, instalment) filter (where kind = 'paid') as days_late_last,
        max(event_timestamp) filter (where kind = 'paid') as last_paid,
        arg_max(amount, instalment) filter (where kind = 'due') as amount_last
    from events
    group by account_id
    having count(*) filter (where kind = 'due') > 0
),
contacted as (
    select
        account_id,
        avg(case when outcome = 'read' then 1e0 else 0e0 end) filter (where kind = 'reminder') as reminders_read_share,
        count(*) filter (where kind = 'call') as calls_90d,
        avg(case when outcome = 'answered' then 1e0 else 0e0 end) filter (where kind = 'call') as calls_answered_share,
        count(*) filter (where kind = 'promise') as promises_90d,
        arg_max(date_diff('day', cast(event_timestamp as date), promised_for), event_timestamp)
            filter (where kind = 'promise') as promised_days_last,
        date_diff('day', cast(max(event_timestamp) as date), cast(getvariable('as_of') as date)) as days_since_contact
    from contacts
    group by account_id
)
select
    paying.account_id,
    paying.dues_90d,
    coalesce(owing.open_30d, 0) as open_30d,
    date_diff('day', cast(owing.oldest as date), cast(getvariable('as_of') as date)) as open_age,
    1e0 - cast(paying.kept_90d as double) / nullif(paying.old_90d, 0) as missed_share_90d,
    1e0 - cast(paying.kept_60d as double) / nullif(paying.old_60d, 0) as missed_share_60d,
    paying.days_late_avg_90d,
    paying.days_late_avg_35d,
    paying.days_late_median_90d,
    paying.days_late_sd_90d,
    paying.days_late_last,
    date_diff('day', cast(paying.last_paid as date), cast(getvariable('as_of') as date)) as days_since_paid,
    paying.amount_last,
    contacted.reminders_read_share,
    coalesce(contacted.calls_90d, 0) as calls_90d,
    contacted.calls_answered_share,
    coalesce(contacted.promises_90d, 0) as promises_90d,
    contacted.promised_days_last,
    contacted.days_since_contact
from paying
left join owing on owing.account_id = paying.account_id
left join contacted on contacted.account_id = paying.account_id
