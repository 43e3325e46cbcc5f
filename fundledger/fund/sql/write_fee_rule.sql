-- Insert a fee rule. $1 version, $2 merchant or null, $3 product, $4 channel or null, $5 basis points, $6 fixed, $7
-- minimum, $8 maximum or null, $9 tiers, $10 time of effect, $11 requesting module, $12 time of creation, $13 key
-- version of the MAC, $14 MAC, $15 currency or null, $16 basis points of the tax, $17 `included` or `added`, $18
-- `proportional` or `none`. Rows: none. Locks: the new row.
INSERT INTO fund.fee_rules (version, merchant, product, channel, basis_points, fixed, minimum, maximum, tiers, effective_at, module,
                            created_at, mac_key, mac, currency, tax_basis_points, tax_mode, fee_return)
OVERRIDING SYSTEM VALUE
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11, $12, $13, $14, $15, $16, $17, $18)
