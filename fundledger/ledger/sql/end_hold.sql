-- End an open hold as captured, released or expired. The caller checks that exactly one row changes.
-- $1 id, $2 module, $3 captured, $4 status, $5 voucher id, $6 ended_at, $7 key version, $8 MAC (layout 2).
-- Rows: none. Locks: the hold; the caller has locked its sub-account.
UPDATE ledger.holds SET captured = $3, status = $4, voucher_id = $5, ended_at = $6, key_version = $7, mac = $8, layout = 2
WHERE id = $1 AND module = $2 AND status = 0
