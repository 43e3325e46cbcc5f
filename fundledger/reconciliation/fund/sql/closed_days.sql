-- Closed days whose instants are recorded, in order. Rows: all. Locks: none.
SELECT d.day, d.begins_at, d.ends_at FROM fund.day_ends d WHERE d.begins_at IS NOT NULL ORDER BY d.day
