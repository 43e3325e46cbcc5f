-- Record that the sweep is complete: from now on a row of an earlier layout does not verify. Rows: none. Locks: the
-- row.
DELETE FROM fund.unswept
