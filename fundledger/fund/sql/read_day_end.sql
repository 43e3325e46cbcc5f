-- The end of a day. $1 day. Rows: one, or none if the day is not closed. Locks: none.
SELECT e.orders, e.closed_at, e.begins_at, e.ends_at, e.ends FROM fund.day_ends e WHERE e.day = $1::date
