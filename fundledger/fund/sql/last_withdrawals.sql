-- The day (UTC) of the last withdrawal of each merchant. $1 merchants. Rows: one per merchant that has a withdrawal.
-- Locks: none.
SELECT m.merchant, l.day FROM unnest($1::text[]) AS m (merchant)
CROSS JOIN LATERAL (
    SELECT (o.created_at AT TIME ZONE 'UTC')::date AS day FROM fund.orders o
    WHERE o.merchant = m.merchant AND o.kind = 'withdrawal' ORDER BY o.seq DESC LIMIT 1
) AS l
