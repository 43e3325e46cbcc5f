-- Up to which time (us) statements are complete: no batch that is written from now on has an earlier one.
-- Rows: one. Locks: none.
SELECT coalesce(pg_sequence_last_value('ledger.statement_mark'::regclass), 0) AS upto_us
