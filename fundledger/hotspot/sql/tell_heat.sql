-- Store the load report of a worker. $1 worker, $2 report. Rows: none. Locks: the row of the worker.
INSERT INTO ledger.heat (worker, hottest) VALUES ($1, $2)
ON CONFLICT (worker) DO UPDATE SET hottest = EXCLUDED.hottest, at = clock_timestamp()
