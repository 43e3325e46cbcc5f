-- Fee rules without a MAC. $1 limit. Rows: at most $1. Locks: none.
SELECT f.version, f.merchant, f.product, f.channel, f.basis_points, f.fixed, f.minimum, f.maximum, f.tiers::text AS tiers,
       f.effective_at, f.module, f.created_at, f.currency, f.tax_basis_points, f.tax_mode, f.fee_return
FROM fund.fee_rules f WHERE f.mac_key = 0 LIMIT $1
