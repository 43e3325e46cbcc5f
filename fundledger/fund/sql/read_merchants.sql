-- Merchants. $1 ids. Rows: one per merchant that exists. Locks: none.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.mac_key, m.mac
FROM fund.merchants m WHERE m.id = ANY ($1::text[])
