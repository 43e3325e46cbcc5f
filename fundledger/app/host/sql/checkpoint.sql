-- Write a checkpoint. Rows: none. Locks: none.
CHECKPOINT
