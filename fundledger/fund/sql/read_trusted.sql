-- The seq up to which orders may have no MAC. Rows: one, or none if every order must have a MAC. Locks: none.
SELECT t.until_seq, t.mac FROM fund.trusted_orders t
