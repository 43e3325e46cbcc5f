-- Read open holds whose expiry time has passed.
-- $1 now, $2 maximum number of holds, $3 account numbers to exclude. Rows: oldest first. Locks: none.
SELECT h.id, h.module, h.account_number, h.slot, h.expires_at FROM ledger.holds h
WHERE h.status = 0 AND h.expires_at <= $1 AND h.account_number <> ALL ($3::bigint[]) ORDER BY h.expires_at LIMIT $2
