-- Rows of fund.payments without a MAC. $1 payment to start after, $2 limit. Rows: at most $2, by id. Locks: these rows.
SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.reversed, p.mac_key, p.mac
FROM fund.payments p WHERE p.mac_key = 0 AND p.order_id > $1 ORDER BY p.order_id LIMIT $2 FOR UPDATE
