-- Orders that change the debts of merchants. An order that is refused or not approved changes none. A split order changes the
-- debts of the merchants of its parts. $1 merchants, null for all. Rows: one per order, by merchant. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.tax, o.parts, o.period
FROM fund.orders o
WHERE (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND ($1::text[] IS NULL OR o.merchant = ANY ($1::text[]))
  AND o.parts IS NULL
UNION ALL
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.tax, o.parts, o.period
FROM fund.orders o
WHERE o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND o.id = ANY (ARRAY(
    SELECT p.order_id FROM fund.split_parts p
    WHERE (p.to_receivable > 0 OR p.set_off > 0) AND ($1::text[] IS NULL OR p.merchant = ANY ($1::text[]))))
ORDER BY merchant
