-- Holidays, by region and day. $1 region, null for all. Rows: one per day. Locks: none.
SELECT h.region, h.day, h.working, h.name, h.change, h.mac_key, h.mac
FROM fund.holidays h WHERE $1::text IS NULL OR h.region = $1 ORDER BY h.region, h.day
