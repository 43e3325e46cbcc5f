-- Refunds to be sent, oldest first. $1 channel, $2 limit, $3 currencies to leave out. Rows: the orders. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.orders o
WHERE o.kind = 'refund' AND o.state = 'posted' AND o.voucher_format = 3 AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency <> ALL ($3::text[])
ORDER BY o.seq
LIMIT $2::bigint
