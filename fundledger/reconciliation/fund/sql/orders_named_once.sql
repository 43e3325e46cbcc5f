-- Kinds, merchants and order numbers that several orders share: one with a keyed id and one with a former id, each of
-- which is valid alone. Rows: the first 100, `total` counts all. Locks: none.
SELECT o.kind, o.order_no, o.merchant, string_agg(o.id::text, ', ' ORDER BY o.seq) AS ids, count(*) OVER () AS total
FROM fund.orders o GROUP BY o.kind, o.order_no, o.merchant HAVING count(*) > 1
ORDER BY o.kind, o.order_no, o.merchant LIMIT 100
