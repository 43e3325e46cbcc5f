-- Orders under one reference of a channel, in the same direction, that are neither refused nor reversed: all but the first. The
-- reference of own money at the channel that it leaves is one of money out.
-- Rows: the first 100; `total` is the number of all. Locks: none.
WITH named AS (
    SELECT o.id, o.seq, o.kind, o.order_no, o.merchant, o.channel, o.channel_ref, fund.receipt(o.kind, o.state, false) AS direction
    FROM fund.orders o
    WHERE o.channel_ref IS NOT NULL
    UNION ALL
    SELECT o.id, o.seq, o.kind, o.order_no, o.merchant, o.counterparty, o.counter_ref, 'out'
    FROM fund.orders o
    WHERE o.counter_ref IS NOT NULL AND o.state NOT IN ('refused', 'rejected', 'expired')
), receipts AS (
    SELECT n.*, first_value(n.id) OVER (PARTITION BY n.channel, n.channel_ref, n.direction ORDER BY n.seq) AS first
    FROM named n
    WHERE n.direction IS NOT NULL
      AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.of_order = n.id AND r.kind = 'reversal' AND r.state = 'posted')
)
SELECT r.id, r.kind, r.order_no, r.merchant, r.channel, r.channel_ref, r.first, count(*) OVER () AS total
FROM receipts r WHERE r.id <> r.first
ORDER BY r.channel, r.channel_ref, r.id LIMIT 100
