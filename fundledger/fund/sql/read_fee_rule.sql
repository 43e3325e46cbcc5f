-- A fee rule. $1 version. Rows: one, or none. Locks: none.
SELECT f.version, f.merchant, f.product, f.channel, f.basis_points, f.fixed, f.minimum, f.maximum, f.tiers::text AS tiers,
       f.effective_at, f.module, f.created_at, f.mac_key, f.mac, f.currency, f.tax_basis_points, f.tax_mode, f.fee_return
FROM fund.fee_rules f WHERE f.version = $1
