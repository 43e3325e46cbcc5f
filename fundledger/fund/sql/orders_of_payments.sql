-- Payments, and the refunds, chargebacks, disputes and reversals of these payments. $1 payment ids. Rows: one per order. Locks:
-- none.
SELECT {order}
FROM fund.orders o WHERE o.id = ANY ($1::uuid[])
   OR (o.of_order = ANY ($1::uuid[]) AND o.kind IN ('refund', 'chargeback', 'dispute', 'reversal'))
