-- Up to which seq orders may have no MAC. Rows: one, none where all orders have one. Locks: none.
SELECT t.until_seq, t.mac FROM fund.trusted_orders t
