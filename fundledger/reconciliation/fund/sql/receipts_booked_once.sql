-- Orders under one reference of a channel, in the same direction, that are neither refused nor reversed: all but the first.
-- Rows: the first 100; `total` is the number of all. Locks: none.
WITH receipts AS (
    SELECT o.id, o.kind, o.order_no, o.merchant, o.channel, o.channel_ref,
           first_value(o.id) OVER (PARTITION BY o.channel, o.channel_ref, fund.receipt(o.kind, o.state, false) ORDER BY o.seq) AS first
    FROM fund.orders o
    WHERE o.channel_ref IS NOT NULL AND fund.receipt(o.kind, o.state, false) IS NOT NULL
      AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.of_order = o.id AND r.kind = 'reversal' AND r.state = 'posted')
)
SELECT r.id, r.kind, r.order_no, r.merchant, r.channel, r.channel_ref, r.first, count(*) OVER () AS total
FROM receipts r WHERE r.id <> r.first
ORDER BY r.channel, r.channel_ref, r.id LIMIT 100
