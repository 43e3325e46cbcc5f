-- Serialize the recording of calendars. Rows: one. Locks: an advisory lock, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.calendars', 0))
