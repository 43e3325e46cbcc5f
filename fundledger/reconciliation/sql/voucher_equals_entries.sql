-- Vouchers whose lines are not exactly their entries: both sides counted and summed by content, in any order.
-- Rows: the first 100 that differ. Locks: none.
WITH lines AS (
    SELECT v.id, count(*) AS n, sum(hash_record_extended(ROW (v.lines[2 * i - 1], v.lines[2 * i]), 0)::numeric) AS content
    FROM ledger.vouchers v CROSS JOIN LATERAL generate_series(1, cardinality(v.lines) / 2) AS i
    WHERE v.refusal IS NULL GROUP BY v.id
), written AS (
    SELECT e.voucher_id AS id, count(*) AS n,
           sum(hash_record_extended(ROW (e.account_number, e.amount), 0)::numeric) AS content
    FROM ledger.entries e GROUP BY e.voucher_id
)
SELECT coalesce(lines.id, written.id) AS id, coalesce(lines.n, 0) AS lines, coalesce(written.n, 0) AS entries
FROM lines FULL JOIN written ON written.id = lines.id
WHERE lines.n IS DISTINCT FROM written.n OR lines.content IS DISTINCT FROM written.content LIMIT 100
