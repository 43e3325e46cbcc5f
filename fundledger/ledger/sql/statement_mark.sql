-- Read the statement mark (us). Each later batch has a time after the mark.
-- Rows: one. Locks: none.
SELECT coalesce(pg_sequence_last_value('ledger.statement_mark'::regclass), 0) AS upto_us
