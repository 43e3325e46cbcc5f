-- Check that a lease has not ended, and lock it until this transaction ends. $1 name, $2 fencing token. A process that
-- is suspended between two statements of the transaction holds the lock for 5 s more. A process that is suspended
-- within a statement holds the lock until it resumes, or its connection ends. Rows: one, or none if the lease has
-- ended. Locks: the lease. While it is locked, no process can take it, but its owner can renew it.
SELECT l.fence, set_config('idle_in_transaction_session_timeout', '5s', true) AS idle FROM daemons.leases l
WHERE l.name = $1 AND l.fence = $2 AND l.expires_at > clock_timestamp() FOR KEY SHARE
