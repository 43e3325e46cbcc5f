-- Merchants without a MAC. $1 limit. Rows: at most $1. Locks: none.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at
FROM fund.merchants m WHERE m.mac_key = 0 LIMIT $1
