-- Every row of fund.merchants, with its MAC. Rows: all. Locks: none.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.mac_key, m.mac
FROM fund.merchants m
