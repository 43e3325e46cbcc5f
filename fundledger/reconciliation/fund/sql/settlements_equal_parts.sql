-- Settlements whose amount, fee or tax differs from the sum of the parts of payments that they settle. Rows: the first 100;
-- `total` is the number of all. Locks: none.
WITH parts AS (
    SELECT s.settlement, sum(s.amount) AS amount, sum(s.fee) AS fee, sum(s.tax) AS tax
    FROM fund.settled_payments s GROUP BY s.settlement
), settlements AS (
    SELECT o.id, o.amount, o.fee, o.tax FROM fund.orders o WHERE o.kind = 'settlement'
)
SELECT coalesce(o.id, p.settlement) AS id, format('amount %s, fee %s, tax %s', p.amount, p.fee, p.tax) AS expected,
       format('amount %s, fee %s, tax %s', o.amount, o.fee, o.tax) AS actual,
       count(*) OVER () AS total
FROM settlements o FULL JOIN parts p ON p.settlement = o.id
WHERE (o.amount, o.fee, o.tax) IS DISTINCT FROM (p.amount, p.fee, p.tax) ORDER BY id LIMIT 100
