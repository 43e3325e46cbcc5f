-- Serialize the approvals of orders that take from accounts of the platform, so that each one is compared with all earlier
-- ones. $1 currency. Rows: one. Locks: an advisory lock, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.platform:' || $1::text, 0))
