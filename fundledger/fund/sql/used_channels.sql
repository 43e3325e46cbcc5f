-- The channels and currencies of all orders. Rows: one per pair. Locks: none.
SELECT DISTINCT o.channel, o.currency FROM fund.orders o WHERE o.channel IS NOT NULL ORDER BY o.channel, o.currency
