-- An open hold becomes captured, released or expired. Exactly one row changes, or the books are wrong.
-- $1 id, $2 captured, $3 status, $4 voucher id, $5 ended_at, $6 key version, $7 MAC.
-- Rows: none. Locks: the hold, after its sub-account.
UPDATE ledger.holds SET captured = $2, status = $3, voucher_id = $4, ended_at = $5, key_version = $6, mac = $7
WHERE id = $1 AND status = 0
