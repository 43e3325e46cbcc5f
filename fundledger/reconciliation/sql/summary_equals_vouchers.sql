-- Summaries that are not the sum of the lines that they name. Rows: the first 100 that differ. Locks: none.
WITH summed AS (
    SELECT e.shard, e.account_number, e.slot, e.seq, e.amount, l.id, count(*) AS n
    FROM ledger.entries e CROSS JOIN LATERAL unnest(e.vouchers) AS l (id) WHERE e.vouchers IS NOT NULL
    GROUP BY e.shard, e.account_number, e.slot, e.seq, e.amount, l.id
), parts AS (
    SELECT summed.*, of_voucher.n AS lines, of_voucher.amount AS part
    FROM summed LEFT JOIN ledger.vouchers v ON v.id = summed.id AND v.refusal IS NULL
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, sum(v.lines[2 * i]) AS amount FROM generate_series(1, cardinality(v.lines) / 2) AS i
        WHERE v.lines[2 * i - 1] = summed.account_number
    ) AS of_voucher
)
SELECT account_number, slot, seq, amount, sum(part)::text AS vouchers FROM parts
GROUP BY shard, account_number, slot, seq, amount
HAVING sum(part) IS DISTINCT FROM amount OR bool_or(n <> lines) LIMIT 100
