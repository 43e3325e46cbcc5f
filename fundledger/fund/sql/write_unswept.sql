-- Record that rows with a MAC of an earlier layout have to be swept. $1 the highest seq of such an order, $2 MAC of
-- this record. Rows: none. Locks: the new row.
INSERT INTO fund.unswept (until_seq, mac) VALUES ($1, $2)
