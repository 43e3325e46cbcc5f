-- Every row of fund.calendars, with its MAC, the earliest first. Rows: all. Locks: none.
SELECT c.from_day, c.timezone, c.cut, c.recorded_at, c.mac_key, c.mac FROM fund.calendars c ORDER BY c.from_day
