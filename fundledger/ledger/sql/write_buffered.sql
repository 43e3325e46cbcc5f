-- Insert buffered credits. The query fails (FL002) if one of the accounts no longer takes buffered credits.
-- $1 batch, $2 accounting date, $3 posted_at, $4 key version; one element per credit (aligned): $5 account numbers, $6 position of
-- the credit (from 1) among the credits of its account in this batch, $7 number of credits of its account in this batch,
-- $8 voucher ids, $9 amounts, $10 MACs, $11 modules; one element per account (aligned): $12 account numbers, $13 shards.
-- Rows: one. Locks: a shared key lock on slot 0 of each account, until the transaction ends; writes of balances do not wait for it.
WITH buffering AS (
    SELECT s.account_number FROM unnest($12::bigint[], $13::integer[]) AS k (account_number, shard)
    JOIN ledger.sub_accounts s ON s.account_number = k.account_number AND s.slot = 0 AND s.shard = k.shard
    WHERE s.status = 0 AND s.buffered AND NOT s.suspect ORDER BY s.account_number FOR KEY SHARE OF s
), new_rows AS (
    INSERT INTO ledger.buffered_entries (account_number, batch, number, of, voucher_id, amount, accounting_date, posted_at,
                                         key_version, mac, module)
    SELECT b.account_number, $1, b.number, b.of, b.voucher_id, b.amount, $2, $3, $4, b.mac, b.module
    FROM unnest($5::bigint[], $6::integer[], $7::integer[], $8::uuid[], $9::bigint[], $10::bytea[], $11::text[])
        AS b (account_number, number, of, voucher_id, amount, mac, module)
)
SELECT ledger.expect_buffering((SELECT count(*) FROM buffering), cardinality($12::bigint[]))
