-- Orders with a MAC of layout 1. $1 seq to start after, $2 limit. Rows: one per order, with its last event, and with
-- its reversal if a reversal is reserved for the order. Locks: none.
SELECT {order},
       (SELECT e.state FROM fund.events e WHERE e.order_id = o.id ORDER BY e.seq DESC LIMIT 1) AS last_event,
       (SELECT r.id FROM fund.orders r WHERE r.of_order = o.id AND r.kind = 'reversal'
           AND r.state NOT IN ('refused', 'created', 'rejected', 'expired') LIMIT 1) AS reversal
FROM fund.orders o WHERE o.layout = 1 AND o.seq > $1 ORDER BY o.seq LIMIT $2
