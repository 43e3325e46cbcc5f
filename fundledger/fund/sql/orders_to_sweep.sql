-- Orders with a MAC of layout 1. $1 seq to start after, $2 limit. Rows: one per order, with its last event, and with
-- its reversal if a reversal is reserved for the order. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher, o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned,
       (SELECT e.state FROM fund.events e WHERE e.order_id = o.id ORDER BY e.seq DESC LIMIT 1) AS last_event,
       (SELECT r.id FROM fund.orders r WHERE r.of_order = o.id AND r.kind = 'reversal'
           AND r.state NOT IN ('refused', 'created', 'rejected', 'expired') LIMIT 1) AS reversal
FROM fund.orders o WHERE o.layout = 1 AND o.seq > $1 ORDER BY o.seq LIMIT $2
