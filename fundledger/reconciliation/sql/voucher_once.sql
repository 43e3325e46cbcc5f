-- Voucher ids that stand more than once. Rows: the first 100. Locks: none.
SELECT v.id, count(*) AS times FROM ledger.vouchers v GROUP BY v.id HAVING count(*) > 1 LIMIT 100
