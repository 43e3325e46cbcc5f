-- Vouchers whose entries do not come to what their lines say, account by account. A line may lie over several slots, so
-- both sides are summed with a weight for each account. That finds what goes wrong; an edit is found by the MACs.
-- Rows: the first 100 that differ. Locks: none.
WITH lines AS (
    SELECT v.id, cardinality(v.lines) / 2 AS n,
           (SELECT sum(hashint8extended(v.lines[2 * i - 1], 0)::numeric * v.lines[2 * i])
            FROM generate_series(1, cardinality(v.lines) / 2) AS i) AS content
    FROM ledger.vouchers v WHERE v.refusal IS NULL
), written AS (
    SELECT e.voucher_id AS id, count(*) AS n, sum(hashint8extended(e.account_number, 0)::numeric * e.amount) AS content
    FROM ledger.entries e GROUP BY e.voucher_id
)
SELECT coalesce(lines.id, written.id) AS id, coalesce(lines.n, 0) AS lines, coalesce(written.n, 0) AS entries
FROM lines FULL JOIN written ON written.id = lines.id
WHERE lines.content IS DISTINCT FROM written.content OR written.n < lines.n LIMIT 100
