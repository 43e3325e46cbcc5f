-- Settlements whose amount or fee differs from the sum of the parts of payments that they settle. Rows: the first 100;
-- `total` is the number of all. Locks: none.
WITH parts AS (
    SELECT s.settlement, sum(s.amount) AS amount, sum(s.fee) AS fee FROM fund.settled_payments s GROUP BY s.settlement
), settlements AS (
    SELECT o.id, o.amount, o.fee FROM fund.orders o WHERE o.kind = 'settlement'
)
SELECT coalesce(o.id, p.settlement) AS id, format('amount %s, fee %s', p.amount, p.fee) AS expected,
       format('amount %s, fee %s', o.amount, o.fee) AS actual,
       count(*) OVER () AS total
FROM settlements o FULL JOIN parts p ON p.settlement = o.id
WHERE o.amount IS DISTINCT FROM p.amount OR o.fee IS DISTINCT FROM p.fee ORDER BY id LIMIT 100
