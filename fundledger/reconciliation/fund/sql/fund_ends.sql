-- Every row of fund.ends, with its MAC. Rows: all. Locks: none.
SELECT e.order_id, e.ending, e.day, e.at, e.mac_key, e.mac FROM fund.ends e
