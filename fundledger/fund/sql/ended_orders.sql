-- Orders whose end was recorded from a time on, null for all, with the time of the record. $1 this time. Rows: one per
-- order. Locks: none.
SELECT {order}, e.at AS ended_at
FROM fund.orders o JOIN fund.events e ON e.order_id = o.id AND e.state = o.state
WHERE o.state IN ('paid', 'bounced', 'won', 'lost') AND ($1::timestamptz IS NULL OR e.at >= $1)
