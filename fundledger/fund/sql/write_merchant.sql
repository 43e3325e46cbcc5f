-- Insert a merchant. $1 id, $2 name, $3 currency, $4 withdrawal limit or null, $5 digest, $6 settlement calendar, $7
-- time, $8 key version of the MAC, $9 MAC. Rows: one, or none if the id exists. Locks: the new row.
INSERT INTO fund.merchants (id, name, currency, withdrawal_limit, digest, settlement, created_at, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO NOTHING
RETURNING created_at
