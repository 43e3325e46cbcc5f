-- Whether a lease still stands, and that nobody takes it before this transaction has ended. $1 name, $2 fence.
-- Rows: one if it does. Locks: the lease, against being taken, not against being renewed.
SELECT l.fence FROM daemons.leases l
WHERE l.name = $1 AND l.fence = $2 AND l.expires_at > clock_timestamp() FOR KEY SHARE
