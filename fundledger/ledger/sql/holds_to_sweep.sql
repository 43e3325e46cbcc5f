-- Read holds whose MAC has layout 1.
-- $1 id and $2 module after which to read, $3 maximum number of rows. Rows: ordered by id and module. Locks: none.
SELECT h.id, h.account_number, h.slot, h.amount, h.captured, h.status, h.digest, h.voucher_id, h.refusal,
       h.created_at, h.expires_at, h.ended_at, h.key_version, h.mac, h.layout, h.module, h.shard
FROM ledger.holds h WHERE h.layout = 1 AND (h.id, h.module) > ($1::text, $2::text) ORDER BY h.id, h.module LIMIT $3
