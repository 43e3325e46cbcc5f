-- Return the number of checkpoints so far. Rows: one. Locks: none.
SELECT num_timed + num_requested AS checkpoints FROM pg_stat_checkpointer
