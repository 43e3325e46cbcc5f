-- Events of a merchant, oldest first. $1 merchant, $2 version to start after, $3 limit. Rows: at most $3. Locks: none.
SELECT e.merchant, e.version, e.what, e.body, e.by, e.approved_by, e.why, e.change, e.at, e.mac_key, e.mac
FROM fund.merchant_events e WHERE e.merchant = $1 AND e.version > $2 ORDER BY e.version LIMIT $3
