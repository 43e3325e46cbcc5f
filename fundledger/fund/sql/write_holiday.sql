-- Write a holiday. $1 region, $2 day, $3 whether it is a working day, $4 name or null, $5 the change, $6 key version of the MAC,
-- $7 MAC. Rows: none. Locks: the row.
INSERT INTO fund.holidays AS h (region, day, working, name, change, mac_key, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (region, day) DO UPDATE SET working = excluded.working, name = excluded.name, change = excluded.change,
    version = nextval('fund.holidays_version'), mac_key = excluded.mac_key, mac = excluded.mac
