-- Approve an order under dual control, which becomes `posting`. $1 order id, $2 approver (IDENTITY or IDENTITY/NOTE), $3
-- seconds until the recoverer takes the order, $4 new MAC, $5 key version of the new MAC, $6 the MAC as read, $7 set-off.
-- The identities of requester and approver have to differ. Rows: the order, or none if it does not wait for approval, if
-- $2 may not approve it, or if it has changed since it was read. Locks: the order.
WITH approved AS (
    UPDATE fund.orders o SET state = 'posting', approved_by = $2, mac = $4, mac_key = $5, set_off = $7,
         due_at = clock_timestamp() + make_interval(secs => $3), step_asked_at = clock_timestamp()
    WHERE o.id = $1 AND o.kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal') AND o.state = 'created'
      AND o.mac IS NOT DISTINCT FROM $6 AND split_part(o.module, '/', 1) <> split_part($2, '/', 1)
    RETURNING o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT a.id, a.merchant, a.kind, a.state, json_build_object('approved_by', a.approved_by), clock_timestamp() FROM approved a
)
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned FROM approved o
