-- Exclude that the closing of a day begins. Rows: one. Locks: an advisory lock, shared, until the transaction ends.
SELECT pg_advisory_xact_lock_shared(hashtextextended('fund.day_closings', 0))
