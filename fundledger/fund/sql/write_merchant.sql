-- Insert a merchant. $1 id, $2 name, $3 currency, $4 withdrawal limit or null, $5 digest, $6 settlement calendar, $7
-- time, $8 settlement days, $9 settlement cut and $10 settlement region, each or null, $11 state, $12 channel and $13
-- payee of the final withdrawal, each or null, $14 basis points, $15 days and $16 first day of the rolling reserve, each or
-- null, $17 version, $18 key version of the MAC, $19 MAC. Rows: one, or none if the id exists. Locks: the new row.
INSERT INTO fund.merchants (id, name, currency, withdrawal_limit, digest, settlement, created_at, settlement_days, settlement_cut,
                            settlement_region, state, final_channel, final_payee, rolling_basis_points, rolling_days,
                            rolling_from, version, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (id) DO NOTHING
RETURNING created_at
