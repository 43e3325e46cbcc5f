-- The last order before a time, and the first order after a time. $1 the first time, $2 the second time. Rows: one, with
-- the seqs of these orders; a seq is null if there is no such order. Locks: none.
SELECT (SELECT o.seq FROM fund.orders o WHERE o.created_at < $1::timestamptz ORDER BY o.created_at DESC, o.seq DESC LIMIT 1) AS before,
       (SELECT o.seq FROM fund.orders o WHERE o.created_at > $2::timestamptz ORDER BY o.created_at, o.seq LIMIT 1) AS after
