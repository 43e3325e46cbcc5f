-- Payouts that differ from their withdrawals or refunds. If the outcome of a payout is not the end of the order, there must
-- be a row in fund.channel_findings. The outcome `absent` agrees with a bounced order. Rows: the first 100;
-- `total` is the number of all. Locks: none.
SELECT p.order_id AS id, c.name, c.expected, c.actual, count(*) OVER () AS total
FROM fund.payouts p
LEFT JOIN fund.orders o ON o.id = p.order_id AND o.kind = p.kind
CROSS JOIN LATERAL (VALUES
    ('channel', o.channel, p.channel),
    ('amount', o.amount::text, p.amount::text),
    ('currency', o.currency, p.currency),
    ('state', CASE WHEN coalesce(o.stuck_from, o.state) IN ('sent', 'unknown', 'paid', 'bounced') THEN o.state ELSE 'sent' END, o.state),
    ('outcome', CASE WHEN p.outcome IS NULL OR p.outcome = o.ending OR (p.outcome = 'absent' AND o.ending = 'bounced')
                       OR EXISTS (SELECT FROM fund.channel_findings f WHERE f.order_id = o.id AND f.says = p.outcome AND o.ending IS NOT NULL)
                     THEN p.outcome ELSE coalesce(o.ending, 'none') END, p.outcome)
) AS c (name, expected, actual)
WHERE c.expected IS DISTINCT FROM c.actual
ORDER BY p.order_id, c.name LIMIT 100
