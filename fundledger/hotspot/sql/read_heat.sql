-- Read the recent load reports of all workers. $1 maximum age (s). Rows: one per reporting worker. Locks: none.
SELECT h.worker, h.hottest FROM ledger.heat h WHERE h.at > clock_timestamp() - make_interval(secs => $1::float8)
