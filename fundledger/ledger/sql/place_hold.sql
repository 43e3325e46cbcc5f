-- Insert a hold. If the id exists, the query fails with a unique violation, and the caller reads and decides again.
-- $1 shard, $2 id, $3 account number, $4 slot, $5 amount, $6 captured, $7 status, $8 voucher id, $9 digest, $10 refusal,
-- $11 created_at, $12 expires_at, $13 ended_at, $14 key version, $15 MAC (layout 2), $16 module.
-- Rows: none. Locks: the hold; the caller has locked its sub-account.
INSERT INTO ledger.holds (shard, id, account_number, slot, amount, captured, status, voucher_id, digest, refusal,
                          created_at, expires_at, ended_at, key_version, mac, layout, module)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 2, $16)
