-- Won disputes of chargebacks and of lost disputes. $1 ids of these orders. Rows: one per won dispute that is not refused. Locks:
-- none. The caller holds the locks of these orders, under which each won dispute is inserted.
SELECT {order}
FROM fund.orders o
WHERE o.of_order = ANY ($1::uuid[]) AND o.kind = 'dispute_won' AND o.state <> 'refused'
