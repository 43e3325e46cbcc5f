-- Read the payment of a refund that is being sent. $1 the refund. Rows: the payment, or none if it is missing. Locks: none.
SELECT {order}
FROM fund.orders r JOIN fund.orders o ON o.id = r.of_order WHERE r.id = $1::uuid
