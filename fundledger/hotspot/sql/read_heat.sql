-- What all workers saw. $1 how many seconds old at most. Rows: one per worker that tells. Locks: none.
SELECT h.worker, h.hottest FROM ledger.heat h WHERE h.at > clock_timestamp() - make_interval(secs => $1::float8)
