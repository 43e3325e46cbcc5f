-- Lock merchants, to serialize their settlements and withdrawals. $1 ids. Rows: one per merchant. Locks: these
-- merchants.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.mac_key, m.mac
FROM fund.merchants m WHERE m.id = ANY ($1::text[])
ORDER BY m.id -- one lock order prevents deadlocks
FOR NO KEY UPDATE
