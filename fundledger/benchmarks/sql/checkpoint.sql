-- After a bulk load, so that its writing is over before a measurement starts. Rows: none. Locks: none.
CHECKPOINT
