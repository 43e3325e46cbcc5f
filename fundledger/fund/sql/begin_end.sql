-- Record how an order ends, before the end is posted. $1 order id, $2 paid, bounced, won or lost, $3 the channel's reference
-- or null, $4 a reason or null, $5 seconds until the recoverer takes the order, $6 the voucher id of the end or null,
-- $7 new MAC, $8 key version of the new MAC, $9 the MAC as read, $10 set-off, $11 parts (JSON) of a split order or null. Raises unique_violation
-- if another order has the receipt. Rows: the order, or none if it cannot end like this,
-- or if it has changed since it was read. Locks: the order.
UPDATE fund.orders o SET ending = $2, channel_ref = $3, reason = $4, due_at = clock_timestamp() + make_interval(secs => $5),
                         end_voucher_id = $6, mac = $7, mac_key = $8, end_set_off = $10, parts = $11::json,
                         step_asked_at = coalesce(o.step_asked_at, clock_timestamp())
WHERE o.id = $1 AND (o.kind IN ('withdrawal', 'own_transfer', 'dispute') OR (o.kind IN ('refund', 'split_refund') AND o.voucher_format = 3))
  AND (o.kind = 'dispute') = ($2 IN ('won', 'lost')) AND o.state IN ('posted', 'sent', 'unknown')
  AND (o.ending IS NULL OR o.ending = $2) AND o.mac IS NOT DISTINCT FROM $9
RETURNING {order}
