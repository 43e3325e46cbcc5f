-- Checkpoint after a bulk load, so that its writes end before a measurement starts. Rows: none. Locks: none.
CHECKPOINT
