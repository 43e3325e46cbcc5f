-- Orders that change the debts of merchants. An order that is refused or not approved changes none. $1 merchants, null for
-- all. Rows: one per order, by merchant. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.orders o
WHERE (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND ($1::text[] IS NULL OR o.merchant = ANY ($1::text[]))
ORDER BY o.merchant
