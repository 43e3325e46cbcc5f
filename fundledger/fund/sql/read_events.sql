-- Events with their orders, ordered by the seq of the event. $1 seq to start after, $2 last seq, $3 limit. Rows: one
-- per event. Locks: none.
SELECT e.seq AS event_seq, e.state AS event_state, e.at AS event_at, e.detail AS event_detail,
       {order}
FROM fund.events e JOIN fund.orders o ON o.id = e.order_id
WHERE e.seq > $1 AND e.seq <= $2 ORDER BY e.seq LIMIT $3
