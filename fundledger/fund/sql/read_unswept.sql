-- Whether rows may have an earlier layout. Rows: one, none if the sweep is complete. Locks: none.
SELECT u.until_seq, u.mac FROM fund.unswept u
