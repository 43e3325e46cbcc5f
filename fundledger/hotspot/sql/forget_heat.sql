-- Delete the load reports of workers that have not reported for a day. Rows: none. Locks: the deleted rows.
DELETE FROM ledger.heat WHERE at < clock_timestamp() - interval '1 day'
