-- One row a client: what the card company knew when the card was given.
select client_id, limit_bal, education, sex, marriage, age
from clients
