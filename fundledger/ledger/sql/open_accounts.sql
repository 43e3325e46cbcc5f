-- Open accounts with their empty sub-accounts. An account whose id exists already is skipped.
-- $1..$12 and $22 (the module): one element per account; $13..$21: one element per sub-account.
-- Rows: ids of the accounts that were opened. Locks: none.
WITH opened AS (
    INSERT INTO ledger.accounts (number, id, owner, type, currency, shard, slots, metadata, created_at, key_version, mac,
                                 buffered, module, layout)
    OVERRIDING SYSTEM VALUE
    SELECT o.*, 2 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::integer[],
                         $8::json[], $9::timestamptz[], $10::smallint[], $11::bytea[], $12::boolean[],
                           $22::text[]) AS o
    ON CONFLICT (id) DO NOTHING
    RETURNING number, id
), empty AS (
    INSERT INTO ledger.sub_accounts (shard, account_number, slot, posted, held, version, seq, posted_at_us, normal,
                                     bounded, status, key_version, last_entry_mac, mac, buffered)
    SELECT s.shard, s.account_number, s.slot, 0, 0, 0, 0, 0, s.normal, s.bounded, 0, s.key_version, s.last_entry_mac, s.mac,
           s.buffered
    FROM unnest($13::integer[], $14::bigint[], $15::integer[], $16::smallint[], $17::boolean[], $18::smallint[],
                $19::bytea[], $20::bytea[], $21::boolean[])
        AS s (shard, account_number, slot, normal, bounded, key_version, last_entry_mac, mac, buffered)
    JOIN opened ON opened.number = s.account_number
)
SELECT id FROM opened
