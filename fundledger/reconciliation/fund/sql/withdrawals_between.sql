-- The times at which the first and the last withdrawal were created, null if there is none. Rows: one. Locks: none.
SELECT min(o.created_at) AS first, max(o.created_at) AS last FROM fund.orders o
WHERE o.kind = 'withdrawal' AND o.created_at >= '1970-01-02Z' AND o.created_at < '9999-01-01Z'
