-- Insert a payout, or count the request if the payout exists (SQLite). ?1 ref, ?2 channel_ref, ?3 amount, ?4 currency,
-- ?5 outcome, ?6 now (ms), ?7 time of settlement (ms), ?8 payee (JSON) or null. Rows: the current payout. Locks: the
-- database file.
INSERT INTO payouts (ref, channel_ref, amount, currency, outcome, accepted_ms, settles_ms, payee)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (ref) DO UPDATE SET
    asked = asked + 1,
    conflicts = conflicts + (amount <> excluded.amount OR currency <> excluded.currency OR payee IS NOT excluded.payee)
RETURNING ref, channel_ref, amount, currency, outcome, settles_ms, asked, payee
