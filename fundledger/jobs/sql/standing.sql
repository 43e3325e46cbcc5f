-- Check that a lease has not ended, and keep other processes from taking it until this transaction ends. $1 name, $2
-- fencing token. A process that is suspended between two statements of the transaction holds the lease for 5 s more. A
-- process that is suspended within a statement holds it until it resumes, or its connection ends. Rows: one if the
-- lease has not ended. Locks: the lease; it cannot be taken then, but can be renewed.
SELECT l.fence, set_config('idle_in_transaction_session_timeout', '5s', true) AS idle FROM daemons.leases l
WHERE l.name = $1 AND l.fence = $2 AND l.expires_at > clock_timestamp() FOR KEY SHARE
