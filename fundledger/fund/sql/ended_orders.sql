-- Withdrawals whose end was recorded from a time on, null for all, with the time of the record. $1 this time. Rows: one per
-- withdrawal. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.settle_on, o.takes_all, e.at AS ended_at
FROM fund.orders o JOIN fund.events e ON e.order_id = o.id AND e.state = o.state
WHERE o.kind = 'withdrawal' AND o.state IN ('paid', 'bounced') AND ($1::timestamptz IS NULL OR e.at >= $1)
