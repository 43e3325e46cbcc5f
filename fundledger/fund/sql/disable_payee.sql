-- Disable a payee. $1 id, $2 time, $3 by which identity, $4 reason or null, $5 key version of the MAC, $6 MAC. The caller
-- holds the lock of the payee. Rows: none. Locks: the payee.
UPDATE fund.payees p SET state = 'disabled', disabled_at = $2, disabled_by = $3, disabled_why = $4, mac_key = $5, mac = $6
WHERE p.id = $1
