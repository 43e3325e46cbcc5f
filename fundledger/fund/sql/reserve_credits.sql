-- The credits of a merchant on a day, before fees: its payments with `settle: now`, its settlements, and its parts of split
-- payments that were posted on the day, or that were created on the day and have no known outcome. An order whose reversal is posted is left
-- out. $1 merchant, $2 beginning and $3 end of the day. An order that was created more than 24 hours before $2 counts only if
-- it was parked. Rows: one, the sum. Locks: none.
WITH first AS (
    SELECT coalesce((SELECT o.seq FROM fund.orders o WHERE o.created_at < $2::timestamptz - interval '1 day'
                     ORDER BY o.created_at DESC, o.seq DESC LIMIT 1), 0) AS seq
)
SELECT coalesce(sum(c.amount), 0)
FROM (
    -- OFFSET 0, and the comparison of rows: the orders are found by merchant, kind and seq. The indexes of times, or of seqs alone, would
    -- read the orders of all merchants.
    (SELECT o.amount, o.reversed_by, o.state, o.created_at, o.posted_at FROM fund.orders o
     WHERE o.merchant = $1::text AND o.kind = 'payment' AND (o.merchant, o.kind, o.seq) > ($1, 'payment', (SELECT f.seq FROM first f))
       AND o.settle = 'now' OFFSET 0)
    UNION ALL
    (SELECT o.amount, o.reversed_by, o.state, o.created_at, o.posted_at FROM fund.orders o
     WHERE o.merchant = $1 AND o.kind = 'settlement' AND (o.merchant, o.kind, o.seq) > ($1, 'settlement', (SELECT f.seq FROM first f)) OFFSET 0)
    UNION ALL
    (SELECT p.amount, o.reversed_by, o.state, o.created_at, o.posted_at FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
     WHERE p.merchant = $1 AND p.kind = 'split_payment' AND p.seq > (SELECT f.seq FROM first f) OFFSET 0)
    UNION ALL
    SELECT coalesce(p.amount, o.amount), o.reversed_by, o.state, o.created_at, o.posted_at
    FROM fund.orders o LEFT JOIN fund.split_parts p ON p.order_id = o.id AND p.merchant = $1
    WHERE o.parking = 'release' AND o.posted_at >= $2 AND o.posted_at < $3 AND o.seq <= (SELECT f.seq FROM first f)
      AND ((o.merchant = $1 AND o.kind = 'payment' AND o.settle = 'now') OR (o.kind = 'split_payment' AND p.amount IS NOT NULL))
) c
WHERE ((c.posted_at >= $2 AND c.posted_at < $3::timestamptz) OR (c.state = 'posting' AND c.created_at >= $2 AND c.created_at < $3))
  AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = c.reversed_by AND r.state = 'posted')
