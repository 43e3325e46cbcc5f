-- The calendars of the fund database, the earliest first. Rows: all; none if no calendar is recorded yet. Locks: none.
SELECT c.from_day, c.timezone, c.cut, c.recorded_at, c.mac_key, c.mac FROM fund.calendars c ORDER BY c.from_day
