-- Rows: none. Locks: none.
CHECKPOINT
