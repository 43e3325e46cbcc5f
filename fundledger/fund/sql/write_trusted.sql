-- Record the seq of the last order that is older than MACs. $1 seq, $2 MAC of this record. Rows: none. Locks: the new
-- row.
INSERT INTO fund.trusted_orders (until_seq, mac) VALUES ($1, $2)
