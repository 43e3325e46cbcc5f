-- Payments whose row in fund.payments differs from their refunds, chargebacks, disputes, settlements and reversal. A dispute
-- that is not won counts as a chargeback. Won disputes reduce the chargebacks. A settlement counts unless its reversal is
-- posted. Rows: the first 100; `total` is the number of all. Locks: none.
WITH back AS (
    SELECT o.of_order, sum(o.amount) FILTER (WHERE o.kind = 'refund') AS refunded,
           sum(o.from_pending) FILTER (WHERE o.kind = 'refund') AS refunded_unsettled,
           sum(o.fee_waived) AS fee_waived,
           sum(o.fee) FILTER (WHERE o.kind = 'refund') AS fee_returned,
           sum(o.tax) FILTER (WHERE o.kind = 'refund') AS tax_returned,
           sum(o.amount) FILTER (WHERE o.kind IN ('chargeback', 'dispute')) AS charged_back,
           sum(o.from_pending) FILTER (WHERE o.kind IN ('chargeback', 'dispute')) AS charged_back_unsettled,
           bool_or(o.kind = 'reversal') AS reversed
    FROM fund.orders o WHERE o.kind IN ('refund', 'chargeback', 'dispute', 'reversal')
      AND o.state NOT IN ('refused', 'created', 'rejected', 'expired', 'bounced', 'won')
    GROUP BY o.of_order
), won AS (
    SELECT c.of_order AS payment, sum(o.amount) AS amount, sum(o.from_pending) AS unsettled
    FROM fund.orders o JOIN fund.orders c ON c.id = o.of_order
    WHERE o.kind = 'dispute_won' AND o.state <> 'refused' GROUP BY c.of_order
), settled AS (
    SELECT s.payment, sum(s.amount) AS amount, sum(s.fee) AS fee, sum(s.tax) AS tax
    FROM fund.settled_payments s JOIN fund.orders o ON o.id = s.settlement AND o.state <> 'refused'
    WHERE NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted')
    GROUP BY s.payment
)
SELECT p.order_id AS id, c.name, c.expected, c.actual, count(*) OVER () AS total
FROM fund.payments p
LEFT JOIN fund.orders o ON o.id = p.order_id AND o.kind = 'payment' AND o.state = 'posted'
LEFT JOIN back b ON b.of_order = p.order_id
LEFT JOIN won w ON w.payment = p.order_id
LEFT JOIN settled s ON s.payment = p.order_id
CROSS JOIN LATERAL (VALUES
    ('merchant', o.merchant, p.merchant),
    ('amount', o.amount::text, p.amount::text),
    ('fee', o.fee::text, p.fee::text),
    ('settled', (CASE o.settle WHEN 'now' THEN o.amount ELSE 0 END + coalesce(s.amount, 0) + coalesce(w.unsettled, 0))::text, p.settled::text),
    ('fee_settled', (CASE o.settle WHEN 'now' THEN o.fee ELSE 0 END + coalesce(s.fee, 0))::text, p.fee_settled::text),
    ('refunded', coalesce(b.refunded, 0)::text, p.refunded::text),
    ('refunded_unsettled', coalesce(b.refunded_unsettled, 0)::text, p.refunded_unsettled::text),
    ('fee_waived', coalesce(b.fee_waived, 0)::text, p.fee_waived::text),
    ('fee_returned', coalesce(b.fee_returned, 0)::text, p.fee_returned::text),
    ('charged_back', (coalesce(b.charged_back, 0) - coalesce(w.amount, 0))::text, p.charged_back::text),
    ('charged_back_unsettled', (coalesce(b.charged_back_unsettled, 0) - coalesce(w.unsettled, 0))::text, p.charged_back_unsettled::text),
    ('tax', o.tax::text, p.tax::text),
    ('tax_settled', (CASE o.settle WHEN 'now' THEN o.tax ELSE 0 END + coalesce(s.tax, 0))::text, p.tax_settled::text),
    ('tax_returned', coalesce(b.tax_returned, 0)::text, p.tax_returned::text),
    ('reversed', coalesce(b.reversed, false)::text, p.reversed::text),
    ('settle_on', o.settle_on::text, p.settle_on::text)
) AS c (name, expected, actual)
WHERE c.expected IS DISTINCT FROM c.actual
ORDER BY p.order_id, c.name LIMIT 100
