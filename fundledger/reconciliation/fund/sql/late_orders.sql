-- Current rows of orders. The check of vouchers uses them for orders that were changed or created after the snapshot.
-- $1 ids of orders, $2 ids of orders whose reversals are read, too. Rows: one per order that exists. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.settle, o.of_order, o.from_pending, o.to_receivable, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.against, o.counterparty, o.counter_set_off, o.of_kind, o.tax, o.parts, o.direction, o.attempt, o.ending, o.stuck_from, o.end_voucher_id, o.voucher_format,
       CASE WHEN o.kind = 'reversal' THEN (SELECT r.voucher_id FROM fund.orders r WHERE r.id = o.of_order) END AS of_voucher
FROM fund.orders o
WHERE o.id = ANY ($1::uuid[]) OR (o.kind = 'reversal' AND o.of_order = ANY ($2::uuid[]))
