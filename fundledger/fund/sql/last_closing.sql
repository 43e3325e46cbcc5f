-- The last day that is closed or being closed, null if there is none. $1 the current day: only days before it can be closed, so other
-- rows are ignored. Rows: one. Locks: none.
SELECT greatest((SELECT max(c.day) FROM fund.day_closings c WHERE c.day < $1), (SELECT max(e.day) FROM fund.day_ends e WHERE e.day < $1))
