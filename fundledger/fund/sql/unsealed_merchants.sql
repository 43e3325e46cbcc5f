-- Some merchants that have no MAC. $1 how many. Rows: so many. Locks: none.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at
FROM fund.merchants m WHERE m.mac_key = 0 LIMIT $1
