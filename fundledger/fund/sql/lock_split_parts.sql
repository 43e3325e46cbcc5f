-- Lock the parts of split orders. $1 orders. Rows: the rows of fund.split_parts that exist. Locks: these rows.
SELECT p.order_id, p.merchant, p.kind, p.seq, p.amount, p.fee, p.tax, p.set_off, p.to_receivable, p.end_set_off, p.refunded, p.fee_returned,
       p.tax_returned, p.charged_back, p.reversed, p.mac_key, p.mac
FROM fund.split_parts p WHERE p.order_id = ANY ($1::uuid[])
ORDER BY p.order_id, p.merchant -- one lock order prevents deadlocks
FOR UPDATE
