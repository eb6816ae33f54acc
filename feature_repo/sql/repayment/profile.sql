-- One row an account: what it is, and whose (age group and gender are kept for the fairness report, not trained on).
select
    account_id,
    product,
    method,
    region,
    principal,
    cast(date_diff('day', opened, cast(getvariable('as_of') as date)) as double) / 30.4 as months_open,
    age_group,
    gender
from accounts
