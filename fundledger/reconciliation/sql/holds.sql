-- All holds. Rows: one per hold. Locks: none.
SELECT h.shard, h.id, h.module, h.account_number, h.slot, h.amount, h.captured, h.status, h.digest, h.voucher_id, h.refusal, h.created_at, h.expires_at, h.ended_at,
       h.key_version, h.mac, h.layout
FROM ledger.holds h
