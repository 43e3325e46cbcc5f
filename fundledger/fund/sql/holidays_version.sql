-- The highest version of a holiday, 0 if there is none. Rows: one. Locks: none.
SELECT coalesce((SELECT h.version FROM fund.holidays h ORDER BY h.version DESC LIMIT 1), 0)
