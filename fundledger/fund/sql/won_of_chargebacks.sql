-- The amounts of chargebacks and lost disputes that won disputes brought back. $1 ids of these orders. Rows: one per order
-- with such an amount. Locks: none.
SELECT o.of_order, sum(o.amount)::bigint AS amount FROM fund.orders o
WHERE o.of_order = ANY ($1::uuid[]) AND o.kind = 'dispute_won' AND o.state <> 'refused' GROUP BY o.of_order
