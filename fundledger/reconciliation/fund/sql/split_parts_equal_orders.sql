-- Parts of split orders whose row in fund.split_parts differs from the order, or from the sum of its refunds, chargebacks and
-- reversal. Bounced and reversed ones do not count. Also parts without a row, and rows without a part. Rows: the first 100;
-- `total` is the number of all. Locks: none.
WITH terms AS (
    SELECT o.id, o.kind, o.seq, o.state, o.of_order, e.part ->> 'merchant' AS merchant, e.part ->> 'amount' AS amount,
           EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted') AS undone,
           e.part ->> 'fee' AS fee, e.part ->> 'tax' AS tax, e.part ->> 'set_off' AS set_off, e.part ->> 'to_receivable' AS to_receivable,
           e.part ->> 'end_set_off' AS end_set_off
    FROM fund.orders o
    CROSS JOIN LATERAL json_array_elements(CASE WHEN json_typeof(o.parts) = 'array' THEN o.parts ELSE '[]' END) AS e (part)
    WHERE o.parts IS NOT NULL
), numbers AS ( -- a text that is no number counts as 0, and differs from the row
    SELECT t.*, CASE WHEN t.amount ~ '^[0-9]{1,19}$' THEN t.amount::numeric ELSE 0 END AS amount_no,
           CASE WHEN t.fee ~ '^[0-9]{1,19}$' THEN t.fee::numeric ELSE 0 END AS fee_no,
           CASE WHEN t.tax ~ '^[0-9]{1,19}$' THEN t.tax::numeric ELSE 0 END AS tax_no
    FROM terms t
), back AS (
    SELECT t.of_order, t.merchant, sum(t.amount_no) FILTER (WHERE t.kind = 'split_refund') AS refunded,
           sum(t.fee_no) FILTER (WHERE t.kind = 'split_refund') AS fee_returned,
           sum(t.tax_no) FILTER (WHERE t.kind = 'split_refund') AS tax_returned,
           sum(t.amount_no) FILTER (WHERE t.kind = 'split_chargeback') AS charged_back,
           bool_or(t.kind = 'reversal') AS reversed
    FROM numbers t
    WHERE t.of_order IS NOT NULL AND NOT t.undone AND t.state NOT IN ('refused', 'created', 'rejected', 'expired', 'bounced')
    GROUP BY t.of_order, t.merchant
)
SELECT coalesce(t.id, p.order_id) AS id, coalesce(t.merchant, p.merchant) AS merchant, c.name, c.expected, c.actual,
       count(*) OVER () AS total
FROM terms t FULL JOIN fund.split_parts p ON p.order_id = t.id AND p.merchant = t.merchant
LEFT JOIN back b ON b.of_order = t.id AND b.merchant = t.merchant AND t.kind = 'split_payment'
CROSS JOIN LATERAL (VALUES
    ('kind', t.kind, p.kind),
    ('seq', t.seq::text, p.seq::text),
    ('amount', t.amount, p.amount::text),
    ('fee', t.fee, p.fee::text),
    ('tax', t.tax, p.tax::text),
    ('set_off', t.set_off, p.set_off::text),
    ('to_receivable', t.to_receivable, p.to_receivable::text),
    ('end_set_off', t.end_set_off, p.end_set_off::text),
    ('refunded', coalesce(b.refunded, 0)::text, p.refunded::text),
    ('fee_returned', coalesce(b.fee_returned, 0)::text, p.fee_returned::text),
    ('tax_returned', coalesce(b.tax_returned, 0)::text, p.tax_returned::text),
    ('charged_back', coalesce(b.charged_back, 0)::text, p.charged_back::text),
    ('reversed', coalesce(b.reversed, false)::text, p.reversed::text)
) AS c (name, expected, actual)
WHERE c.expected IS DISTINCT FROM c.actual
ORDER BY 1, 2, c.name LIMIT 100
