-- Wait until each transaction that assigns an end to a day has ended, and exclude such transactions. Rows: one. Locks: an
-- advisory lock, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.day_closings', 0))
