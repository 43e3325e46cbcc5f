-- Replace a hold's MAC of layout 1 by a MAC of layout 2, if the row has not changed since it was verified.
-- $1 id, $2 module, $3 old MAC, $4 key version, $5 new MAC. Rows: none. Locks: the hold.
UPDATE ledger.holds SET layout = 2, key_version = $4, mac = $5
WHERE id = $1 AND module = $2 AND layout = 1 AND mac = $3
