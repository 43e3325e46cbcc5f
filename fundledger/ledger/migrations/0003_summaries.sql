-- A summarised journal: one entry of a batch on a sub-account stands for the lines of several vouchers.

ALTER TABLE ledger.entries ALTER COLUMN voucher_id DROP NOT NULL;
ALTER TABLE ledger.entries ADD COLUMN vouchers uuid[];
ALTER TABLE ledger.entries ADD CONSTRAINT entries_vouchers CHECK ((voucher_id IS NULL) <> (vouchers IS NULL));
COMMENT ON COLUMN ledger.entries.vouchers IS 'of a summary: whose lines on this account it sums, a voucher for each line';

DROP VIEW ledger.journal;
-- For people: times, sides and account ids instead of numbers; of a summary, how many lines it sums.
CREATE VIEW ledger.journal AS
SELECT e.posted_at, e.accounting_date, a.id AS account, e.slot, e.seq, coalesce(v.type, 'summary') AS type,
       CASE WHEN e.amount > 0 THEN 'credit' ELSE 'debit' END AS side, abs(e.amount) AS amount,
       e.balance_after * s.normal AS balance_after, a.currency, e.voucher_id, cardinality(e.vouchers) AS summed
FROM ledger.entries e
JOIN ledger.accounts a ON a.number = e.account_number
JOIN ledger.sub_accounts s ON s.shard = e.shard AND s.account_number = e.account_number AND s.slot = e.slot
LEFT JOIN ledger.vouchers v ON v.id = e.voucher_id;
