-- Closed days. $1 the first day. Rows: one per closed day. Locks: none.
SELECT e.day FROM fund.day_ends e WHERE e.day >= $1::date
