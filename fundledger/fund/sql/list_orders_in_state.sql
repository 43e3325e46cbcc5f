-- Orders of a merchant, of one kind and in a state that few orders have, oldest first. $1 merchant, $2 kind, $3 state,
-- $4 seq to start after, $5 limit. $3 must be neither `posted` nor `posting`: the query repeats this condition, so that
-- the partial index is used. Rows: at most $5. Locks: none.
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.digest, o.voucher_id, o.module,
       o.created_at, o.channel, o.channel_ref, o.settle, o.of_order, o.from_pending, o.to_receivable, o.fee_waived,
       o.fee_version, o.direction, o.reason, o.ticket, o.approved_by, o.attempt, o.ending, o.reversed_by, o.problem,
       o.posted_at, o.due_at, o.seq, o.stuck_from, o.of_voucher,
       o.end_voucher_id, o.mac, o.mac_key, o.voucher_format, o.layout, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.returned
FROM fund.orders o
WHERE o.merchant = $1 AND o.kind = $2 AND o.seq > $4 AND o.state = $3::text
  AND o.state NOT IN ('posted', 'posting')
ORDER BY o.seq LIMIT $5
