-- Insert an event of a merchant. $1 merchant, $2 version, $3 what happened, $4 changed members (JSON), $5 by which identity, $6
-- which identity approved it, or null, $7 the reason, or null, $8 the change, or null, $9 time, $10 key version of the MAC, $11
-- MAC. Rows: none. Locks: the new row.
INSERT INTO fund.merchant_events (merchant, version, what, body, by, approved_by, why, change, at, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
