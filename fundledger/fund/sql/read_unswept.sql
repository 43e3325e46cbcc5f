-- Whether rows may be of an earlier layout. Rows: one, none when the sweep is complete. Locks: none.
SELECT u.until_seq, u.mac FROM fund.unswept u
