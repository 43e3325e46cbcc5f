-- Read the holds of an account that were open at the given time. $1 account number, $2 time. Rows: one per hold. Locks: none.
SELECT h.id, h.account_number, h.slot, h.amount, h.captured, h.status, h.digest, h.voucher_id, h.refusal,
       h.created_at, h.expires_at, h.ended_at, h.key_version, h.mac,
       h.layout, h.module, h.shard
FROM ledger.holds h
WHERE h.account_number = $1 AND h.status <> 4 AND h.created_at <= $2 AND (h.ended_at IS NULL OR h.ended_at > $2)
