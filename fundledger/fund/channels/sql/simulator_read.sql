-- A payout (SQLite). ?1 ref. Rows: one, or none if there is no such payout. Locks: none.
SELECT ref, channel_ref, amount, currency, outcome, settles_ms, asked, payee FROM payouts WHERE ref = ?1
