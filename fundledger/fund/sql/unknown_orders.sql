-- The number of orders without a known outcome that were created before a time. $1 this time. Rows: one. Locks: none.
SELECT count(*) FROM fund.orders o WHERE o.due_at IS NOT NULL AND o.state = 'posting' AND o.created_at < $1
