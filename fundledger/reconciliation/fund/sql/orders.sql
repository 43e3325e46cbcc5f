-- All orders, ordered by id. Rows: one per order. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.settle, o.of_order, o.from_pending, o.to_receivable, o.direction, o.approved_by, o.attempt,
       o.ending, o.problem, o.posted_at, o.stuck_from, o.of_voucher, o.end_voucher_id, o.seq, o.channel_ref, o.fee_waived, o.fee_version, o.reason, o.ticket, o.mac,
       o.mac_key, o.layout, o.voucher_format, o.reversed_by, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.orders o ORDER BY o.id
