-- The fee rules of a merchant, and the fee rules for all merchants. $1 merchant. Rows: one per rule. Locks: none.
SELECT f.version, f.merchant, f.product, f.channel, f.basis_points, f.fixed, f.minimum, f.maximum, f.tiers::text AS tiers,
       f.effective_at, f.module, f.created_at, f.mac_key, f.mac, f.currency, f.tax_basis_points, f.tax_mode, f.fee_return
FROM fund.fee_rules f WHERE f.merchant = $1
UNION ALL
SELECT f.version, f.merchant, f.product, f.channel, f.basis_points, f.fixed, f.minimum, f.maximum, f.tiers::text AS tiers,
       f.effective_at, f.module, f.created_at, f.mac_key, f.mac, f.currency, f.tax_basis_points, f.tax_mode, f.fee_return
FROM fund.fee_rules f WHERE f.merchant IS NULL
ORDER BY version
