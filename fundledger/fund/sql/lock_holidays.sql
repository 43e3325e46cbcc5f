-- Serialize changes of holidays, so that their versions become visible in sequence. Rows: one. Locks: an advisory lock, until
-- the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.holidays', 0))
