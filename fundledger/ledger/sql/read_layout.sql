-- Read the settings that were fixed when the ledger was initialised. Rows: at most one. Locks: none.
SELECT l.shards, l.platform_slots, l.ledger_id FROM ledger.settings l
