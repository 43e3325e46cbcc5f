-- Record that the sweep is complete: from now on each row has a MAC of the current layout. Rows: none. Locks: the row.
DELETE FROM fund.unswept
