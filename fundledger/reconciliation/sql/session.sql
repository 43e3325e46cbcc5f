-- How a verification reads: large sorts in memory, several processes at most. Rows: none. Locks: none.
SELECT set_config('work_mem', '256MB', true), set_config('max_parallel_workers_per_gather', '1', true), set_config('jit', 'off', true)
