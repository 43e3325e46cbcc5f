-- Every row of fund.split_parts, with its MAC. Rows: all. Locks: none.
SELECT p.order_id, p.merchant, p.kind, p.seq, p.amount, p.fee, p.tax, p.set_off, p.to_receivable, p.end_set_off, p.refunded, p.fee_returned,
       p.tax_returned, p.charged_back, p.reversed, p.mac_key, p.mac
FROM fund.split_parts p
