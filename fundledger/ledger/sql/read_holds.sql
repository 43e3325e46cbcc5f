-- Read holds by id. A hold changes only under the lock of its sub-account.
-- $1 hold ids. Rows: one for each id and each module that has placed a hold with this id. Locks: none.
SELECT h.id, h.account_number, h.slot, h.amount, h.captured, h.status, h.digest, h.voucher_id, h.refusal,
       h.created_at, h.expires_at, h.ended_at, h.key_version, h.mac, h.layout, h.module, h.shard
FROM ledger.holds h WHERE h.id = ANY ($1::text[])
