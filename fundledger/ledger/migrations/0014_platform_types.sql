-- The types equity, other_income, own_transit, channel_payable and tax_payable belong to the platform. Their accounts have several slots
-- from the start, and no voucher is split over them, so the view leaves them out like those of the earlier platform types.
CREATE OR REPLACE VIEW ledger.line_counts_due AS
WITH split AS (
    SELECT s.account_number FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number
    WHERE a.type NOT IN ('bank', 'fee_income', 'channel_expense', 'payout_transit', 'suspense', 'equity', 'other_income', 'own_transit',
                         'channel_payable', 'tax_payable')
    GROUP BY s.account_number HAVING count(*) > 1
), parts AS (
    SELECT e.account_number, e.slot, e.seq, e.voucher_id, e.module, count(*) OVER w AS entries,
           min(e.slot) OVER w <> max(e.slot) OVER w AS several,
           row_number() OVER (PARTITION BY e.account_number, e.voucher_id, e.module ORDER BY e.slot DESC, e.seq DESC) AS from_the_last
    FROM split JOIN ledger.entries e ON e.account_number = split.account_number
    WHERE e.voucher_id IS NOT NULL
    WINDOW w AS (PARTITION BY e.account_number, e.voucher_id, e.module)
), deltas AS (
    SELECT p.account_number, p.slot, p.seq,
           CASE WHEN own.lines * 2 < cardinality(v.lines) AND p.from_the_last = 1 THEN own.lines - 1 ELSE -1 END AS delta
    FROM parts p JOIN ledger.vouchers v ON v.id = p.voucher_id
         AND (v.module = p.module OR (p.module IS NULL AND v.shared_id))
    CROSS JOIN LATERAL (
        SELECT count(*) AS lines FROM generate_series(1, cardinality(v.lines) / 2) AS i
        WHERE v.lines[2 * i - 1] = p.account_number
    ) AS own
    WHERE p.several OR p.entries <> own.lines
    UNION ALL
    SELECT e.account_number, e.slot, e.seq, cardinality(e.vouchers) - 1 FROM ledger.entries e WHERE e.vouchers IS NOT NULL
)
SELECT d.account_number, d.slot, d.seq,
       sum(d.delta) OVER (PARTITION BY d.account_number, d.slot ORDER BY d.seq)::bigint AS extra
FROM deltas d;
