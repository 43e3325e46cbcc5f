-- Voucher ids that are stored more than once for the same module. Before modules were recorded, all modules shared one
-- set of ids, in which each id must also be unique. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT t.id, t.module, t.times, count(*) OVER () AS total
FROM (
    SELECT v.id, v.module, count(*) AS times FROM ledger.vouchers v GROUP BY v.id, v.module HAVING count(*) > 1
    UNION ALL
    SELECT v.id, min(v.module), count(*) FROM ledger.vouchers v WHERE v.shared_id
    GROUP BY v.id HAVING count(*) > 1 AND count(DISTINCT v.module) > 1
) AS t
ORDER BY t.id LIMIT 100
