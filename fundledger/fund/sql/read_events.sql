-- Events with their orders, ordered by the seq of the event. $1 seq to start after, $2 last seq, $3 limit. Rows: one
-- per event. Locks: none.
SELECT e.seq AS event_seq, e.state AS event_state, e.at AS event_at, e.detail AS event_detail,
       o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.events e JOIN fund.orders o ON o.id = e.order_id
WHERE e.seq > $1 AND e.seq <= $2 ORDER BY e.seq LIMIT $3
