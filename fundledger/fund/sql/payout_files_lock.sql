-- Serialize the exports of a channel, and the imports of its results. $1 channel. Rows: one. Locks: an advisory lock, until
-- the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('fund.payout_files:' || $1::text, 0))
