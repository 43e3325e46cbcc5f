-- Serialize the imports of a channel's statements, so that only one statement can match an order. $1 channel. Rows:
-- one. Locks: an advisory lock, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.bank_statements:' || $1::text, 0))
