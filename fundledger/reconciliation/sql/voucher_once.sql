-- Voucher ids that stand more than once. Rows: the first 100, `total` counts all. Locks: none.
SELECT v.id, count(*) AS times, count(*) OVER () AS total FROM ledger.vouchers v
GROUP BY v.id HAVING count(*) > 1 ORDER BY v.id LIMIT 100
