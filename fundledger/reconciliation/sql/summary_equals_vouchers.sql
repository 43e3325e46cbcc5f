-- Summaries whose amount differs from the sum of the lines that they stand for. Rows: the first 100; `total` is the
-- number of all. Locks: none.
WITH summed AS (
    SELECT e.shard, e.account_number, e.slot, e.seq, e.amount, e.module, l.id, count(*) AS n
    FROM ledger.entries e CROSS JOIN LATERAL unnest(e.vouchers) AS l (id) WHERE e.vouchers IS NOT NULL
    GROUP BY e.shard, e.account_number, e.slot, e.seq, e.amount, e.module, l.id
), parts AS (
    SELECT summed.*, of_voucher.n AS lines, of_voucher.amount AS part
    FROM summed LEFT JOIN ledger.vouchers v ON v.id = summed.id AND v.refusal IS NULL
         AND (v.module = summed.module OR (summed.module IS NULL AND v.shared_id))
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, sum(v.lines[2 * i]) AS amount FROM generate_series(1, cardinality(v.lines) / 2) AS i
        WHERE v.lines[2 * i - 1] = summed.account_number
    ) AS of_voucher
)
SELECT a.id, p.account_number, p.slot, p.seq, p.amount, sum(p.part)::text AS vouchers, count(*) OVER () AS total
FROM parts p LEFT JOIN ledger.accounts a ON a.number = p.account_number
GROUP BY a.id, p.shard, p.account_number, p.slot, p.seq, p.amount
HAVING sum(p.part) IS DISTINCT FROM p.amount OR bool_or(p.n <> p.lines)
ORDER BY p.account_number, p.slot, p.seq LIMIT 100
