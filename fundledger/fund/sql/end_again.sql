-- Another attempt at the end of a withdrawal whose voucher was finally refused: it gets another voucher id.
-- $1 order id, $2 the attempt that was refused, $3 seconds until the next one, $4 its voucher, $5 the MAC, $6 the key of it,
-- $7 the MAC that the order was read with. Rows: one, none when the order changed since. Locks: the order.
UPDATE fund.orders o SET attempt = o.attempt + 1, end_voucher_id = $4, mac = $5, mac_key = $6, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE o.id = $1 AND o.attempt = $2 AND o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')
  AND o.mac IS NOT DISTINCT FROM $7
RETURNING o.id
