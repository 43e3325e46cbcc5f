-- Invoices of channels whose payments exceed the invoice, or that are reversed although they are paid. A payment counts if it
-- is approved, and neither refused nor reversed. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT i.id, CASE WHEN i.reversed_by IS NULL THEN i.amount ELSE 0 END AS amount, sum(o.amount)::text AS paid, count(*) OVER () AS total
FROM fund.orders o JOIN fund.orders i ON i.id = o.of_order
LEFT JOIN fund.orders r ON r.id = o.reversed_by
WHERE o.kind = 'payable_payment' AND o.state NOT IN ('refused', 'created', 'rejected', 'expired')
  AND r.state IS DISTINCT FROM 'posted'
GROUP BY i.id, i.amount, i.reversed_by
HAVING sum(o.amount) > CASE WHEN i.reversed_by IS NULL THEN i.amount ELSE 0 END
ORDER BY i.id LIMIT 100
