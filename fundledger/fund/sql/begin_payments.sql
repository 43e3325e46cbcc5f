-- Make the rows that tell what became of payments, where they are not there yet. $1 ids of payments. Rows: none.
-- Locks: the new rows.
INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled)
SELECT o.id, o.merchant, o.seq, o.amount, o.fee, o.amount, o.fee
FROM fund.orders o
WHERE o.id = ANY ($1::uuid[]) AND o.kind = 'payment' AND o.state = 'posted' AND o.settle = 'now'
ORDER BY o.id
ON CONFLICT (order_id) DO NOTHING
