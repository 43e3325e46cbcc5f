-- Insert missing rows of fund.debts, without a debt. A merchant with an earlier debt must already have had a row: if this
-- row is missing, no new row is inserted. $1 merchants, $2 MACs, $3 key version of the MACs, $4 ids of orders whose debts are
-- not recorded yet. Rows: none. Locks: the new rows.
INSERT INTO fund.debts (merchant, owed, mac_key, mac)
SELECT n.merchant, 0, $3, n.mac FROM unnest($1::text[], $2::bytea[]) AS n (merchant, mac)
WHERE NOT EXISTS (
    SELECT FROM fund.orders o
    WHERE o.merchant = n.merchant AND o.to_receivable > 0 AND o.posted_at IS NOT NULL AND o.id <> ALL ($4::uuid[]) AND o.parts IS NULL
) AND NOT EXISTS (
    SELECT FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
    WHERE p.merchant = n.merchant AND p.to_receivable > 0 AND o.posted_at IS NOT NULL AND o.id <> ALL ($4::uuid[])
)
ORDER BY n.merchant
ON CONFLICT (merchant) DO NOTHING
