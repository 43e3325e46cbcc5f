-- Record the decision on a change. $1 id, $2 new state, $3 checker or null, $4 time, $5 reason or null, $6 key version
-- of the MAC, $7 MAC. The caller holds the lock of the change. Rows: none. Locks: the change.
UPDATE fund.changes c SET state = $2, checker = $3, decided_at = $4, reason = $5, mac_key = $6, mac = $7 WHERE c.id = $1
