-- Orders without a known outcome that may take from accounts of the platform. $1 currency, $2 kinds. Rows: one per order.
-- Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.due_at IS NOT NULL AND o.state = 'posting' AND o.currency = $1 AND o.kind = ANY ($2::text[])
UNION ALL
SELECT {order}
FROM fund.orders o
WHERE o.state = 'stuck' AND o.stuck_from = 'posting' AND o.currency = $1 AND o.kind = ANY ($2::text[])
