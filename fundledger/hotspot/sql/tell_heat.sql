-- Store the load report of a worker. $1 worker, $2 its report. Rows: none. Locks: the worker's own row.
INSERT INTO ledger.heat (worker, hottest) VALUES ($1, $2)
ON CONFLICT (worker) DO UPDATE SET hottest = EXCLUDED.hottest, at = clock_timestamp()
