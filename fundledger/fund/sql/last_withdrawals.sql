-- The time at which the last withdrawal of each merchant was created. $1 merchants. Rows: one per merchant that has a
-- withdrawal. Locks: none.
SELECT m.merchant, l.created_at FROM unnest($1::text[]) AS m (merchant)
CROSS JOIN LATERAL (
    SELECT o.created_at FROM fund.orders o
    WHERE o.merchant = m.merchant AND o.kind = 'withdrawal' ORDER BY o.seq DESC LIMIT 1
) AS l
