-- Record a calendar. $1 first day, $2 time zone, $3 cut, $4 time of the record, $5 key version of the MAC, $6 MAC. Rows:
-- none. Locks: the new row.
INSERT INTO fund.calendars (from_day, timezone, cut, recorded_at, mac_key, mac) VALUES ($1, $2, $3, $4, $5, $6)
