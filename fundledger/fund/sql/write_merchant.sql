-- A new merchant. $1 id, $2 name, $3 currency, $4 withdrawal limit or null, $5 digest. Rows: one, none when there is one of
-- this id. Locks: the new row.
INSERT INTO fund.merchants (id, name, currency, withdrawal_limit, digest) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO NOTHING
RETURNING created_at
