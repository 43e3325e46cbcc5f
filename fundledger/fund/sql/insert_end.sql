-- Insert the end of an order that ended before ends were recorded. $1 order id, $2 paid, bounced, won or lost, $3 day, $4 time, $5
-- key version of the MAC, $6 MAC. Rows: none. Locks: the new row.
INSERT INTO fund.ends (order_id, ending, day, at, mac_key, mac) VALUES ($1, $2, $3, $4, $5, $6)
