-- The reserve holds of a merchant that are named like holds of a rolling reserve, in any state. $1 merchant, $2 time: orders up
-- to the last one created before it are left out. Rows: one per order, by seq. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.merchant = $1::text AND o.kind = 'reserve_hold' AND o.order_no ~ '^auto-\d{4}-\d\d-\d\d-\d{1,6}$'
  AND (o.merchant, o.kind, o.seq) > ($1, 'reserve_hold', coalesce((
      SELECT f.seq FROM fund.orders f WHERE f.created_at < $2::timestamptz ORDER BY f.created_at DESC, f.seq DESC LIMIT 1), 0))
ORDER BY o.seq
