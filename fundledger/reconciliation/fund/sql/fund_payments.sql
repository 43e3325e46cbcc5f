-- Every row of fund.payments, with its MAC. Rows: all. Locks: none.
SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.charged_back_unsettled, p.reversed, p.mac_key, p.mac, p.tax, p.tax_settled, p.tax_returned,
       p.settle_on
FROM fund.payments p
