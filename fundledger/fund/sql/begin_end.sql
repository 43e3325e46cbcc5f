-- Record how a withdrawal or a refund ends, before the end is posted. $1 order id, $2 paid or bounced, $3 the channel's reference
-- or null, $4 a reason or null, $5 seconds until the recoverer takes the order, $6 the voucher id of the end or null,
-- $7 new MAC, $8 key version of the new MAC, $9 the MAC as read, $10 set-off. Raises unique_violation
-- if another order has the receipt. Rows: the order, or none if it cannot end like this,
-- or if it has changed since it was read. Locks: the order.
UPDATE fund.orders o SET ending = $2, channel_ref = $3, reason = $4, due_at = clock_timestamp() + make_interval(secs => $5),
                         end_voucher_id = $6, mac = $7, mac_key = $8, end_set_off = $10,
                         step_asked_at = coalesce(o.step_asked_at, clock_timestamp())
WHERE o.id = $1 AND (o.kind = 'withdrawal' OR (o.kind = 'refund' AND o.voucher_format = 3)) AND o.state IN ('posted', 'sent', 'unknown')
  AND (o.ending IS NULL OR o.ending = $2) AND o.mac IS NOT DISTINCT FROM $9
RETURNING o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
