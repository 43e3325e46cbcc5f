-- Merchants, oldest first. $1 after which seq, $2 how many. Rows: so many. Locks: none.
SELECT m.seq, m.id FROM fund.merchants m WHERE m.seq > $1 ORDER BY m.seq LIMIT $2
