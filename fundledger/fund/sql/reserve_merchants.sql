-- Merchants with a rolling reserve whose accounts are open. $1 merchant to start after, $2 limit. Rows: one per merchant, by id.
-- Locks: none.
SELECT m.id FROM fund.merchants m
WHERE m.rolling_basis_points IS NOT NULL AND m.state <> 'closed' AND m.id > $1::text
ORDER BY m.id LIMIT $2::bigint
