-- Orders that refer to a missing or unsuitable order, and orders that are marked as reversed by an order that does not
-- reverse them. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT x.id, x.kind, x.found, count(*) OVER () AS total FROM (
    SELECT o.id, o.kind, CASE
        WHEN t.id IS NULL THEN 'none'
        ELSE format('%s %s of %s, %s, %s, %s', t.kind, t.id, t.merchant, t.currency, coalesce(t.channel, 'no channel'), t.state)
        END AS found
    FROM fund.orders o LEFT JOIN fund.orders t ON t.id = o.of_order
    WHERE o.kind IN ('refund', 'chargeback', 'reversal', 'payout_return')
      AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND (
        t.id IS NULL OR t.merchant <> o.merchant OR t.currency <> o.currency
        OR t.state <> CASE o.kind WHEN 'payout_return' THEN 'paid' ELSE 'posted' END
        OR (o.kind IN ('refund', 'chargeback') AND t.kind <> 'payment') OR (o.kind = 'payout_return' AND t.kind <> 'withdrawal')
        OR (o.kind <> 'reversal' AND t.channel IS DISTINCT FROM o.channel)
        OR (o.kind = 'reversal' AND (t.amount <> o.amount OR t.reversed_by IS DISTINCT FROM o.id))
    )
    UNION ALL
    SELECT t.id, t.kind, 'reversed by ' || t.reversed_by
    FROM fund.orders t LEFT JOIN fund.orders r
        ON r.id = t.reversed_by AND r.kind = 'reversal' AND r.of_order = t.id
       AND r.state NOT IN ('refused', 'created', 'rejected', 'expired')
    WHERE t.reversed_by IS NOT NULL AND r.id IS NULL
) AS x (id, kind, found) ORDER BY x.id LIMIT 100
