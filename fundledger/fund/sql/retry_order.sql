-- Retry an order: return a stuck order to its state before `stuck`, or set a new due time for an order that waits for
-- the recoverer. $1 order id, $2 requesting module, $3 seconds until the recoverer takes the order, $4 how the cause
-- was removed, or null, $5 new MAC, $6 key version of the new MAC, $7 the MAC as read. Rows: the order, or none if it
-- has no step left, or if it has changed since it was read. Locks: the order.
WITH before AS (
    SELECT o.id, o.state FROM fund.orders o
    WHERE o.id = $1 AND o.mac IS NOT DISTINCT FROM $7 AND (o.state IN ('stuck', 'posting')
                         OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')))
    FOR UPDATE
), retried AS (
    UPDATE fund.orders o
    SET state = coalesce(o.stuck_from, o.state), stuck_from = NULL, problem = NULL, mac = $5, mac_key = $6,
        due_at = CASE WHEN o.ending IS NOT NULL OR coalesce(o.stuck_from, o.state) = 'posting'
                      THEN clock_timestamp() + make_interval(secs => $3) END
    FROM before b WHERE o.id = b.id
    RETURNING o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT r.id, r.merchant, r.kind, r.state, json_strip_nulls(json_build_object('retried_by', $2::text, 'reason', $4::text)), clock_timestamp()
    FROM retried r JOIN before b ON b.id = r.id WHERE b.state = 'stuck'
)
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned FROM retried o
