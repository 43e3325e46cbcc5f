-- Events with their orders, in order. $1 after which seq, $2 up to which, $3 how many at most.
-- Rows: one per event. Locks: none.
SELECT e.seq, e.state AS event_state, e.detail, e.at, o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee,
       o.currency, o.voucher_id, o.channel, o.channel_ref, o.created_at, o.posted_at, o.problem
FROM fund.events e JOIN fund.orders o ON o.id = e.order_id
WHERE e.seq > $1 AND e.seq <= $2 ORDER BY e.seq LIMIT $3
