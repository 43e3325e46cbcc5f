-- The sweep is complete: from now on each row has a MAC of the present layout. Rows: none. Locks: the row.
DELETE FROM fund.unswept
