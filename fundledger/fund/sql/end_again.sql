-- The end of a withdrawal was refused for good under its voucher's id: another attempt has another one. $1 order id, $2 the
-- attempt that was refused, $3 seconds until it is tried, $4 the
-- voucher of the next attempt, $5 its MAC, $6 key of that. Rows: one, none when somebody else said so. Locks: the order.
UPDATE fund.orders o SET attempt = o.attempt + 1, end_voucher_id = $4, mac = $5, mac_key = $6, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE o.id = $1 AND o.attempt = $2 AND o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')
RETURNING o.id
