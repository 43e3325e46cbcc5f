-- Check that a lease has not ended, and keep other processes from taking it until this transaction ends. $1 name, $2
-- fencing token. Rows: one if it has not ended. Locks: the lease, against being taken, not against being renewed.
SELECT l.fence FROM daemons.leases l
WHERE l.name = $1 AND l.fence = $2 AND l.expires_at > clock_timestamp() FOR KEY SHARE
