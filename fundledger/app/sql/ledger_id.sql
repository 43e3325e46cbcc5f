-- Which ledger it is. Rows: one. Locks: none.
SELECT l.ledger_id FROM ledger.settings l
