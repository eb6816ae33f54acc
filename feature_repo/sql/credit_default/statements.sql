-- One row a client: the last six statements, newest first (a lag counts statements, not calendar months).
with numbered as (
    select
        statements.client_id,
        statements.pay_status,
        statements.bill_amt,
        statements.pay_amt,
        statements.bill_amt / nullif(clients.limit_bal, 0) as used,
        row_number() over (partition by statements.client_id order by statements.event_timestamp desc) as lag
    from statements
    left join clients on clients.client_id = statements.client_id
),
compared as (
    -- What was paid in a month is compared with the bill of the month before.
    select
        numbered.*,
        case when previous.bill_amt > 0 then least(numbered.pay_amt / previous.bill_amt, 2.0) end as paid_share
    from numbered
    left join numbered as previous on previous.client_id = numbered.client_id and previous.lag = numbered.lag + 1
)
select
    client_id,
    max(pay_status) filter (where lag = 1) as pay_status_1,
    max(pay_status) filter (where lag = 2) as pay_status_2,
    max(pay_status) filter (where lag = 3) as pay_status_3,
    max(pay_status) filter (where lag = 4) as pay_status_4,
    max(pay_status) filter (where lag = 5) as pay_status_5,
    max(pay_status) filter (where lag = 6) as pay_status_6,
    max(bill_amt) filter (where lag = 1) as bill_1,
    max(bill_amt) filter (where lag = 2) as bill_2,
    max(bill_amt) filter (where lag = 3) as bill_3,
    max(bill_amt) filter (where lag = 6) as bill_6,
    max(pay_amt) filter (where lag = 1) as paid_1,
    max(pay_amt) filter (where lag = 2) as paid_2,
    max(pay_amt) filter (where lag = 3) as paid_3,
    max(pay_amt) filter (where lag = 4) as paid_4,
    max(pay_amt) filter (where lag = 5) as paid_5,
    max(pay_amt) filter (where lag = 6) as paid_6,
    max(pay_status) as worst_status,
    count(*) filter (where pay_status > 0) as months_behind,
    max(used) filter (where lag = 1) as used_1,
    avg(used) as used_mean,
    max(used) filter (where lag = 1) - max(used) filter (where lag = 6) as used_change,
    max(paid_share) filter (where lag = 1) as paid_share_1,
    avg(paid_share) as paid_share_mean
from compared
where lag <= 6
group by client_id
