-- Record that the MAC sweep is complete: delete the row of fund.unswept. From then on a row of an earlier layout does
-- not verify. Rows: none. Locks: the row of fund.unswept.
DELETE FROM fund.unswept
