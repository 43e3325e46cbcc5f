-- Record the last seq of orders older than MACs. $1 seq, $2 MAC of that. Rows: none. Locks: the new row.
INSERT INTO fund.trusted_orders (until_seq, mac) VALUES ($1, $2)
