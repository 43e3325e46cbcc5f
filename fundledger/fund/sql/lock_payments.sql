-- Lock the progress of payments. $1 ids of payments. Rows: the rows of fund.payments that exist. Locks: these rows,
-- oldest first.
SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.charged_back_unsettled, p.reversed, p.mac_key, p.mac, p.tax, p.tax_settled, p.tax_returned,
       p.settle_on
FROM fund.payments p WHERE p.order_id = ANY ($1::uuid[])
ORDER BY p.seq -- as in lock_unsettled and payments_to_sweep: one lock order prevents deadlocks
FOR UPDATE
