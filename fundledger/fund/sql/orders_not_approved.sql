-- Orders that wait for approval and were created before a time, oldest first. $1 this time, $2 limit, $3 and $4 time and
-- id after which the page begins. Rows: at most $2. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.orders o
WHERE o.state = 'created' AND o.created_at <= $1 AND (o.created_at, o.id) > ($3::timestamptz, $4::uuid)
ORDER BY o.created_at, o.id LIMIT $2
