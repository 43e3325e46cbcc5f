-- Set the session for a verification: large sorts in memory, at most one parallel worker, no JIT. Rows: one. Locks:
-- none.
SELECT set_config('work_mem', '256MB', true), set_config('max_parallel_workers_per_gather', '1', true), set_config('jit', 'off', true)
