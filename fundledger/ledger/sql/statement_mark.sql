-- Read up to which time (us) statements are complete: no later batch has an earlier time.
-- Rows: one. Locks: none.
SELECT coalesce(pg_sequence_last_value('ledger.statement_mark'::regclass), 0) AS upto_us
