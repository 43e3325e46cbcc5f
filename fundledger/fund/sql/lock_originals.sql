-- Lock the orders that reversals reverse, and the withdrawals of payout returns. $1 ids of these orders. Rows: one per order.
-- Locks: these orders.
SELECT {order}
FROM fund.orders o WHERE o.id = ANY ($1::uuid[])
ORDER BY o.id -- one lock order prevents deadlocks
FOR UPDATE
