-- A refund (SQLite). ?1 ref. Rows: one, or none if there is no such refund. Locks: none.
SELECT ref, channel_ref, amount, currency, outcome, settles_ms, asked, original_ref FROM refunds WHERE ref = ?1
