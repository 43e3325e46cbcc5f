-- Every row of fund.merchant_events, with its MAC. Rows: all. Locks: none.
SELECT e.merchant, e.version, e.what, e.body, e.by, e.approved_by, e.why, e.change, e.at, e.mac_key, e.mac FROM fund.merchant_events e
