-- Vouchers whose entries differ from their lines. A line may be spread over several slots, so entries and lines are
-- each summed with a weight for each account. A summary counts as the lines of its vouchers on that account, and a
-- buffered credit counts as the line of its voucher. This check finds errors of the software; the checks of MACs find
-- deliberate edits. Arrays are read by unnest: each subscript would decompress the whole array again.
-- Rows: the first 100; `total` is the number of all. Locks: none.
WITH lines AS (
    SELECT v.id, CASE WHEN v.shared_id THEN '' ELSE v.module END AS named, v.module, cardinality(v.lines) / 2 AS n,
           -- unnest ignores dimensions and bounds, which the constraints of the table require.
           CASE WHEN array_ndims(v.lines) = 1 AND array_lower(v.lines, 1) = 1 THEN (
                SELECT sum(hashint8extended(l.account_number, 0)::numeric * l.amount) FROM (
                    SELECT i, x AS account_number, lead(x) OVER (ORDER BY i) AS amount
                    FROM unnest(v.lines) WITH ORDINALITY AS line (x, i)
                ) AS l WHERE l.i % 2 = 1
           ) END AS content
    FROM ledger.vouchers v WHERE v.refusal IS NULL
), summed AS (
    SELECT DISTINCT e.shard, e.account_number, e.slot, e.seq, e.module, l.id
    FROM ledger.entries e CROSS JOIN LATERAL unnest(e.vouchers) AS l (id) WHERE e.vouchers IS NOT NULL
), written AS (
    SELECT p.id, coalesce(p.module, '') AS named, count(*) AS n, sum(hashint8extended(p.account_number, 0)::numeric * p.amount) AS content
    FROM (
        SELECT e.voucher_id AS id, e.module, e.account_number, e.amount FROM ledger.entries e WHERE e.voucher_id IS NOT NULL
        UNION ALL
        SELECT b.voucher_id, b.module, b.account_number, b.amount FROM ledger.buffered_entries b
        UNION ALL
        SELECT summed.id, summed.module, summed.account_number, (
            SELECT sum(l.amount) FROM (
                SELECT i, x AS account_number, lead(x) OVER (ORDER BY i) AS amount
                FROM unnest(v.lines) WITH ORDINALITY AS line (x, i)
            ) AS l WHERE l.i % 2 = 1 AND l.account_number = summed.account_number
        )
        FROM summed LEFT JOIN ledger.vouchers v ON v.id = summed.id
             AND (v.module = summed.module OR (summed.module IS NULL AND v.shared_id))
    ) AS p GROUP BY p.id, p.module
)
-- Entries that were written before modules were recorded have no modules.
SELECT coalesce(lines.id, written.id) AS id, coalesce(lines.module, written.named) AS module,
       coalesce(lines.n, 0) AS lines, coalesce(written.n, 0) AS entries,
       count(*) OVER () AS total
FROM lines FULL JOIN written ON written.id = lines.id AND written.named = lines.named
WHERE lines.content IS DISTINCT FROM written.content
ORDER BY id LIMIT 100
