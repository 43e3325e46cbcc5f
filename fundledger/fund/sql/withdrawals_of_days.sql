-- The withdrawals of merchants that were created in periods. $1 merchants, $2 beginnings, $3 ends, in parallel. Rows: one per
-- withdrawal. Locks: none.
SELECT {order}
FROM fund.orders o JOIN unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS w (merchant, begins_at, ends_at)
    ON w.merchant = o.merchant
WHERE o.kind = 'withdrawal' AND o.created_at >= w.begins_at AND o.created_at < w.ends_at
