-- The seq up to which orders may have no MAC. Rows: one, none if all orders have one. Locks: none.
SELECT t.until_seq, t.mac FROM fund.trusted_orders t
