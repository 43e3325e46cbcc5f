-- Combinations of kind, merchant and order number that several orders have. For example, one order has a keyed id,
-- another order has a former id, and each of the two orders is valid alone. Rows: the first 100; `total` is the number
-- of all. Locks: none.
SELECT o.kind, o.order_no, o.merchant, string_agg(o.id::text, ', ' ORDER BY o.seq) AS ids, count(*) OVER () AS total
FROM fund.orders o GROUP BY o.kind, o.order_no, o.merchant HAVING count(*) > 1
ORDER BY o.kind, o.order_no, o.merchant LIMIT 100
