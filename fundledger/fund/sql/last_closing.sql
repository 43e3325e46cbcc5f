-- The last day that is closed or being closed, null if there is none. Rows: one. Locks: none.
SELECT greatest((SELECT max(c.day) FROM fund.day_closings c), (SELECT max(e.day) FROM fund.day_ends e))
