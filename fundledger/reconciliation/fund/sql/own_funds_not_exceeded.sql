-- Currencies in which more own funds left than came in. An order whose reversal is posted does not count. Rows: the first 100;
-- `total` is the number of all. Locks: none.
SELECT o.currency, coalesce(sum(o.amount) FILTER (WHERE o.direction = 'in' AND o.state = 'posted'), 0)::text AS put_in,
       coalesce(sum(o.amount) FILTER (WHERE o.direction = 'out'), 0)::text AS taken_out, count(*) OVER () AS total
FROM fund.orders o
WHERE o.kind = 'own_funds' AND o.state NOT IN ('created', 'refused', 'rejected', 'expired')
  AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted')
GROUP BY o.currency
HAVING coalesce(sum(o.amount) FILTER (WHERE o.direction = 'out'), 0)
     > coalesce(sum(o.amount) FILTER (WHERE o.direction = 'in' AND o.state = 'posted'), 0)
ORDER BY o.currency LIMIT 100
