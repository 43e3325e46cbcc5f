-- Change a merchant. The caller holds the lock of the merchant. $1 id, $2 name, $3 withdrawal limit or null, $4 settlement
-- calendar, $5 settlement days, $6 settlement cut and $7 settlement region, each or null, $8 state, $9 channel and $10 payee
-- of the final withdrawal, each or null, $11 basis points, $12 days and $13 first day of the rolling reserve, each or null,
-- $14 version, $15 key version of the MAC, $16 MAC. Rows: none. Locks: the merchant.
UPDATE fund.merchants m
SET name = $2, withdrawal_limit = $3, settlement = $4, settlement_days = $5, settlement_cut = $6, settlement_region = $7, state = $8,
    final_channel = $9, final_payee = $10, rolling_basis_points = $11, rolling_days = $12, rolling_from = $13, version = $14,
    mac_key = $15, mac = $16
WHERE m.id = $1
