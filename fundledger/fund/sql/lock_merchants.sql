-- Settlements and withdrawals of a merchant come one after the other. $1 ids. Rows: one each. Locks: these merchants.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.mac_key, m.mac
FROM fund.merchants m WHERE m.id = ANY ($1::text[])
ORDER BY m.id -- so that two who lock several never wait for each other
FOR NO KEY UPDATE
