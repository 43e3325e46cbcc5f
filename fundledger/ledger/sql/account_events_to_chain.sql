-- Read account events that were written before chains existed. $1 maximum number of rows. Rows: oldest first. Locks: none.
SELECT e.id, e.account_number, e.status, e.reason, e.module, e.at FROM ledger.account_events e
WHERE e.layout = 1 ORDER BY e.id LIMIT $1
