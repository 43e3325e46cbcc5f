-- Record that the end of a withdrawal or refund is posted: the state becomes the end that begin_end.sql recorded. $1 order id, $2
-- new MAC, $3 key version of the new MAC, $4 the MAC as read. Rows: the order, or none if this is already recorded, or
-- if the order has changed since it was read. Locks: the order.
WITH marked AS (
    UPDATE fund.orders o SET state = o.ending, due_at = NULL, mac = $2, mac_key = $3
    WHERE o.id = $1 AND o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')
      AND o.mac IS NOT DISTINCT FROM $4
    RETURNING o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, json_strip_nulls(json_build_object('channel_ref', m.channel_ref, 'reason', m.reason)),
           clock_timestamp()
    FROM marked m
)
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned FROM marked o
