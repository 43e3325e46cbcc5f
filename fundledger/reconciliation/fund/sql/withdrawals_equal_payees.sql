-- Withdrawals whose payee is missing, belongs to another merchant or currency, or was not usable yet. A payout in a file needs
-- a withdrawal with a payee. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT o.id, o.merchant, o.order_no, o.currency,
       CASE WHEN o.payee IS NULL THEN 'none' WHEN p.id IS NULL THEN 'a payee that does not exist'
            ELSE format('payee of %s in %s, usable from %s', p.merchant, p.currency, p.usable_from) END AS actual,
       count(*) OVER () AS total
FROM fund.orders o LEFT JOIN fund.payees p ON p.id = o.payee
WHERE (o.payee IS NOT NULL AND (p.id IS NULL OR p.merchant <> o.merchant OR p.currency <> o.currency OR p.usable_from > o.created_at))
   OR (o.payee IS NULL AND EXISTS (SELECT FROM fund.payouts f WHERE f.order_id = o.id AND f.file_no IS NOT NULL))
ORDER BY o.id LIMIT 100
