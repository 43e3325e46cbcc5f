-- Sub-accounts whose stored number of statement lines differs from the number of lines in their entries. Rows: the
-- first 100; `total` is the number of all. Locks: none.
SELECT a.id, c.account_number, c.slot, c.seq, c.stored, c.due, count(*) OVER () AS total
FROM (
    SELECT coalesce(s.account_number, d.account_number) AS account_number, coalesce(s.slot, d.slot) AS slot,
           coalesce(s.seq, d.seq) AS seq, s.extra AS stored, d.extra AS due
    FROM ledger.line_counts s FULL JOIN ledger.line_counts_due d
        ON d.account_number = s.account_number AND d.slot = s.slot AND d.seq = s.seq
    WHERE s.extra IS DISTINCT FROM d.extra
) AS c LEFT JOIN ledger.accounts a ON a.number = c.account_number
ORDER BY c.account_number, c.slot, c.seq LIMIT 100
