-- Write a batch of one shard: vouchers, new balances, entries. The only statement that changes a balance.
-- $1 shard, $2 batch, $3 accounting date, $4 posted_at, $5 posted_at in microseconds, $6 key version;
-- $7..$17 one element a voucher (line_from and line_to delimit its part of $18), $18 lines of all vouchers, flat;
-- $19..$27 one element a sub-account that changed; $28..$34 one element an entry.
-- Rows: none. Locks: the sub-accounts, which the caller holds already.
WITH new_vouchers AS (
    INSERT INTO ledger.vouchers (shard, id, type, digest, lines, reference, metadata, hold, reverses, refusal,
                                 batch, accounting_date, posted_at, key_version, mac)
    SELECT $1, v.id, v.type, v.digest, ($18::bigint[])[v.line_from:v.line_to], v.reference, v.metadata, v.hold,
           v.reverses, v.refusal, $2, $3, $4, $6, v.mac
    FROM unnest($7::uuid[], $8::text[], $9::bytea[], $10::integer[], $11::integer[], $12::text[], $13::json[],
                $14::text[], $15::uuid[], $16::text[], $17::bytea[])
        AS v (id, type, digest, line_from, line_to, reference, metadata, hold, reverses, refusal, mac)
), new_balances AS (
    UPDATE ledger.sub_accounts s
    SET posted = b.posted, held = b.held, version = b.version, seq = b.seq, posted_at_us = $5, status = b.status,
        key_version = $6, last_entry_mac = b.last_entry_mac, mac = b.mac
    FROM unnest($19::bigint[], $20::integer[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[],
                $25::smallint[], $26::bytea[], $27::bytea[])
        AS b (account_number, slot, posted, held, version, seq, status, last_entry_mac, mac)
    WHERE s.shard = $1 AND s.account_number = b.account_number AND s.slot = b.slot
)
INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, amount, balance_after,
                            accounting_date, posted_at, key_version, mac)
SELECT $1, e.account_number, e.slot, e.seq, e.voucher_id, e.amount, e.balance_after, $3, $4, $6, e.mac
FROM unnest($28::bigint[], $29::integer[], $30::bigint[], $31::uuid[], $32::bigint[], $33::bigint[], $34::bytea[])
    AS e (account_number, slot, seq, voucher_id, amount, balance_after, mac)
