-- Take parked orders whose merchants' accounts are to be read. $1 limit, $2 least and $3 greatest seconds until an order is
-- due again: in between a tenth of its age. Concurrent calls get different orders. Rows: the orders. Locks: these orders.
UPDATE fund.orders o SET due_at = clock_timestamp() + make_interval(secs =>
    least($3, greatest($2, extract(epoch FROM clock_timestamp() - o.created_at)::float8 / 10)))
WHERE o.id = ANY (ARRAY( -- run once: a subquery of IN may run for each row, and take other rows each time
    SELECT d.id FROM fund.orders d WHERE d.state = 'parked' AND d.due_at <= clock_timestamp()
    ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
