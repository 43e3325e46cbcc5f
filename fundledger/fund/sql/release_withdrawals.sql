-- What refused withdrawals would have been is not counted for their day. $1 ids of withdrawals. Rows: none. Locks: the
-- merchants' days.
UPDATE fund.withdrawal_days d SET amount = d.amount - w.amount
FROM (SELECT o.merchant, (o.created_at AT TIME ZONE 'UTC')::date AS day, sum(o.amount)::bigint AS amount
      FROM fund.orders o WHERE o.id = ANY ($1::uuid[]) AND o.kind = 'withdrawal' GROUP BY 1, 2) w
WHERE d.merchant = w.merchant AND d.day = w.day
