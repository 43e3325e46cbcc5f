-- Workers that have not told anything for a day are gone. Rows: none. Locks: those rows.
DELETE FROM ledger.heat WHERE at < clock_timestamp() - interval '1 day'
