-- Every row of fund.holidays, with its MAC. Rows: all. Locks: none.
SELECT h.region, h.day, h.working, h.name, h.change, h.mac_key, h.mac FROM fund.holidays h
