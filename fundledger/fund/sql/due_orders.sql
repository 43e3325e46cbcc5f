-- Take due orders for recovery: orders that are `posting`, and orders whose recorded end is not posted. $1 limit,
-- $2 seconds until a new order is due again. This time grows with the age of the order since its creation, or since its
-- current step was recorded, up to twelve times $2 after 11 minutes. Concurrent calls get different orders. Rows: the orders. Locks: these orders.
UPDATE fund.orders o SET due_at = clock_timestamp() + make_interval(secs => $2 *
    greatest(1, least(12, 1 + floor(extract(epoch FROM clock_timestamp() - coalesce(o.step_asked_at, o.created_at))::float8 / 60))))
WHERE o.id = ANY (ARRAY( -- run once: a subquery of IN may run for each row, and take other rows each time
    SELECT d.id FROM fund.orders d
    WHERE d.due_at <= clock_timestamp()
      AND (d.state = 'posting' OR (d.ending IS NOT NULL AND d.state IN ('posted', 'sent', 'unknown')))
    ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING {order}
