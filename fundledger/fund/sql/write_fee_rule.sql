-- A fee rule. $1 merchant or null, $2 product, $3 channel or null, $4 basis points, $5 fixed, $6 minimum, $7 maximum or null,
-- $8 tiers, $9 from when, $10 who says so. Rows: its version. Locks: the new row.
INSERT INTO fund.fee_rules (merchant, product, channel, basis_points, fixed, minimum, maximum, tiers, effective_at, module)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10)
RETURNING version
