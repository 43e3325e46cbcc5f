-- One import of a channel's statements at a time: what a line explains is decided once. $1 channel. Rows: one. Locks: an
-- advisory one, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.bank_statements:' || $1::text, 0))
