-- The withdrawals of merchants on days (UTC). $1 merchants, $2 days, pairwise. Rows: one per withdrawal. Locks: none.
SELECT {order}
FROM fund.orders o JOIN unnest($1::text[], $2::date[]) AS w (merchant, day) ON w.merchant = o.merchant
WHERE o.kind = 'withdrawal' AND (o.created_at AT TIME ZONE 'UTC')::date = w.day
