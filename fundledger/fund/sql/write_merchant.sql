-- A new merchant. $1 id, $2 name, $3 currency, $4 withdrawal limit or null, $5 digest, $6 when it is settled. Rows: one,
-- none when there is one of this id. Locks: the new row.
INSERT INTO fund.merchants (id, name, currency, withdrawal_limit, digest, settlement) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING
RETURNING created_at
