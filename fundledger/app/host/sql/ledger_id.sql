-- Read the id of the ledger. Rows: one. Locks: none.
SELECT l.ledger_id FROM ledger.settings l
