-- Take parked orders whose merchants' accounts are to be read. $1 limit, $2 least and $3 greatest seconds until an order is
-- due again: in between a tenth of its age. An order that is being cleared is left out. Concurrent calls get different orders. Rows: the orders. Locks: these orders.
UPDATE fund.orders o SET due_at = clock_timestamp() + make_interval(secs =>
    least($3, greatest($2, extract(epoch FROM clock_timestamp() - o.created_at)::float8 / 10)))
WHERE o.id = ANY (ARRAY( -- run once: a subquery of IN may run for each row, and take other rows each time
    SELECT d.id FROM fund.orders d WHERE d.state = 'parked' AND d.due_at <= clock_timestamp() AND d.reversed_by IS NULL
    ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING {order}
