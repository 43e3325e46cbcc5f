-- The seq up to which orders may have a MAC of an earlier layout. Rows: one, or none if the MAC sweep is complete.
-- Locks: none.
SELECT u.until_seq, u.mac FROM fund.unswept u
