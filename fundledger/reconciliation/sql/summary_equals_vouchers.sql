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
        SELECT count(*) AS n, sum(l.amount) AS amount FROM (
            SELECT i, x AS account_number, lead(x) OVER (ORDER BY i) AS amount
            FROM unnest(v.lines) WITH ORDINALITY AS line (x, i) -- see voucher_equals_entries.sql
        ) AS l WHERE l.i % 2 = 1 AND l.account_number = summed.account_number
    ) AS of_voucher
)
SELECT a.id, p.account_number, p.slot, p.seq, p.amount, sum(p.part)::text AS vouchers, count(*) OVER () AS total
FROM parts p LEFT JOIN ledger.accounts a ON a.number = p.account_number
GROUP BY a.id, p.shard, p.account_number, p.slot, p.seq, p.amount
HAVING sum(p.part) IS DISTINCT FROM p.amount OR bool_or(p.n <> p.lines)
ORDER BY p.account_number, p.slot, p.seq LIMIT 100
