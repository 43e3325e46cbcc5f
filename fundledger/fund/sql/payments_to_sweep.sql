-- Rows of fund.payments without a MAC. $1 id of the payment to start after, $2 limit. Rows: the next $2 rows by id,
-- returned oldest first. Locks: these rows, oldest first.
SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.charged_back_unsettled, p.reversed, p.mac_key, p.mac, p.tax, p.tax_settled, p.tax_returned,
       p.settle_on
FROM fund.payments p
WHERE p.order_id = ANY (ARRAY(
    SELECT n.order_id FROM fund.payments n WHERE n.mac_key = 0 AND n.order_id > $1 ORDER BY n.order_id LIMIT $2
))
ORDER BY p.seq -- as in lock_payments: one lock order prevents deadlocks
FOR UPDATE
