-- Record another attempt to post the end of an order, with another voucher id, after a final refusal. $1 order id,
-- $2 the refused attempt, $3 seconds until the next attempt, $4 new voucher id, $5 new MAC, $6 key version of the new
-- MAC, $7 the MAC as read. Rows: one, or none if the order has changed since it was read. Locks: the order.
UPDATE fund.orders o SET attempt = o.attempt + 1, end_voucher_id = $4, mac = $5, mac_key = $6, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE o.id = $1 AND o.attempt = $2 AND o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')
  AND o.mac IS NOT DISTINCT FROM $7
RETURNING o.id
