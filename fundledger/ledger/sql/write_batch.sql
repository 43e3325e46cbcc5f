-- Write the part of a batch in one shard: vouchers, new balances, entries. No other query changes a balance.
-- Atomic: if a sub-account has changed since the batch was decided, the query fails (FL001). It also fails if the time of
-- the batch is not after the statement mark (FL003).
-- Columns are arrays of fixed-width elements, or byte strings in pieces of 32 bytes. Both kinds are read by position. Reading by
-- position costs a quarter less (measured) than one unnest per column. A column that is mostly null is empty if all its values
-- are null.
-- $1 shard, $2 batch, $3 accounting date, $4 posted_at, $5 posted_at in microseconds, $6 key version;
-- vouchers: $7 how many, $8 ids (followed by ids that only entries refer to), $9 the types that occur, $10 index into $9, empty
-- if there is one type only, $11 digests, $12 lines, flat, $13 end of each voucher's lines, empty if each has two lines,
-- $14 MACs, $15 references, $16 metadata, $17 holds, $18 reversed vouchers, $19 refusals;
-- sub-accounts: $20 how many, $21 account numbers, $22 slots, $23 posted, $24 held, $25 versions, $26 seqs,
-- $27 statuses, $28 MACs of the last entry, $29 MACs; values before: $38 posted, $39 held, $40 versions, $41 statuses, $42 MACs;
-- $43 synchronous_commit of this transaction: off only if the answers wait for a flush (ADR 0013);
-- $44 number of slots that slot 0 records, aligned with $21, empty if no slots are opened;
-- $48 whether credits may be buffered, aligned with $21, empty unless a policy changes;
-- entries: $30 how many, summaries first, $31 account numbers, $32 slots, empty if all are 0, $33 seqs, $34 index into $8
-- (0: a summary), $35 amounts, $36 balances, $37 MACs; $45 indexes into $8 of the vouchers of summaries, flat, $46 end of each
-- summary in $45 (both empty if there are no summaries), $47 accounting dates, NULL if the date is $3 (empty if all are NULL);
-- order of events in the outbox: $49 indexes into $8 in the order of decisions, empty if that is the order of $8;
-- entries that are not exactly one statement line (aligned): $50 account numbers, $51 slots, $52 seqs, $53 number of lines
-- minus number of entries, summed over this entry and the previous ones of this batch on the same slot;
-- modules: $54 the modules that occur, $55 index into $54 for each element of $8, empty if there is one module only.
-- Rows: one. Locks: the sub-accounts, in the order given, until the transaction ends.
WITH new_vouchers AS (
    INSERT INTO ledger.vouchers (shard, id, type, digest, lines, reference, metadata, hold, reverses, refusal,
                                 batch, accounting_date, posted_at, key_version, mac, layout, module)
    SELECT $1, ($8::uuid[])[v.k], ($9::text[])[coalesce(($10::integer[])[v.k], 1)],
           substring($11::bytea FROM 32 * v.k - 31 FOR 32),
           ($12::bigint[])[coalesce(($13::integer[])[v.k - 1], 4 * v.k - 4) + 1:coalesce(($13::integer[])[v.k], 4 * v.k)],
           v.reference, v.metadata, v.hold, v.reverses, v.refusal,
           $2, $3, $4, $6, substring($14::bytea FROM 32 * v.k - 31 FOR 32), 2,
           ($54::text[])[coalesce(($55::integer[])[v.k], 1)]
    FROM ROWS FROM (generate_series(1, $7::integer), unnest($15::text[]), unnest($16::json[]), unnest($17::text[]),
                    unnest($18::uuid[]), unnest($19::text[]))
        AS v (k, reference, metadata, hold, reverses, refusal)
), new_balances AS (
    UPDATE ledger.sub_accounts s
    SET posted = ($23::bigint[])[k], held = ($24::bigint[])[k], version = ($25::bigint[])[k], seq = ($26::bigint[])[k],
        posted_at_us = $5, status = ($27::smallint[])[k], key_version = $6, slots = coalesce(($44::integer[])[k], s.slots),
        buffered = coalesce(($48::boolean[])[k], s.buffered),
        last_entry_mac = substring($28::bytea FROM 32 * k - 31 FOR 32), mac = substring($29::bytea FROM 32 * k - 31 FOR 32)
    FROM generate_series(1, $20::integer) AS k
    WHERE s.account_number = ($21::bigint[])[k] AND s.slot = ($22::integer[])[k]
      AND s.shard + 0 = $1 -- with `+ 0` no index on shard is used: a plan made on a small table would permanently scan the whole shard
      AND s.posted = ($38::bigint[])[k] AND s.held = ($39::bigint[])[k] AND s.version = ($40::bigint[])[k]
      AND s.status = ($41::smallint[])[k] AND s.mac = substring($42::bytea FROM 32 * k - 31 FOR 32)
      AND NOT s.suspect
    RETURNING 1
), new_entries AS (
    INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, vouchers, amount, balance_after,
                                accounting_date, posted_at, key_version, mac, module)
    SELECT $1, ($31::bigint[])[k], coalesce(($32::integer[])[k], 0), ($33::bigint[])[k], ($8::uuid[])[($34::integer[])[k]],
           CASE WHEN ($34::integer[])[k] = 0 THEN ARRAY(
               SELECT ($8::uuid[])[i]
               FROM unnest(($45::integer[])[coalesce(($46::integer[])[k - 1], 0) + 1:($46::integer[])[k]]) AS i
           ) END,
           ($35::bigint[])[k], ($36::bigint[])[k], coalesce(($47::date[])[k], $3), $4, $6, substring($37::bytea FROM 32 * k - 31 FOR 32),
           ($54::text[])[CASE WHEN cardinality($55::integer[]) = 0 THEN 1
               WHEN ($34::integer[])[k] > 0 THEN ($55::integer[])[($34::integer[])[k]]
               -- All vouchers of a summary have the module of the first one.
               ELSE ($55::integer[])[($45::integer[])[coalesce(($46::integer[])[k - 1], 0) + 1]] END]
    FROM generate_series(1, $30::integer) AS k
), new_counts AS (
    INSERT INTO ledger.line_counts (account_number, slot, seq, extra)
    SELECT n.account_number, n.slot, n.seq, n.delta + coalesce((
        SELECT c.extra FROM ledger.line_counts c
        WHERE c.account_number = n.account_number AND c.slot = n.slot AND c.seq < n.seq ORDER BY c.seq DESC LIMIT 1
    ), 0)
    FROM unnest($50::bigint[], $51::integer[], $52::bigint[], $53::bigint[]) AS n (account_number, slot, seq, delta)
), new_events AS (
    INSERT INTO ledger.outbox (shard, batch, vouchers, at, modules)
    SELECT $1, $2,
           CASE WHEN cardinality($49::integer[]) = 0 THEN ($8::uuid[])[1:$7::integer]
                ELSE ARRAY(SELECT ($8::uuid[])[i] FROM unnest($49::integer[]) WITH ORDINALITY AS d (i, n) ORDER BY n) END,
           $4,
           CASE WHEN cardinality($55::integer[]) = 0 THEN $54::text[]
                WHEN cardinality($49::integer[]) = 0 THEN ARRAY(SELECT ($54::text[])[m] FROM unnest(($55::integer[])[1:$7::integer]) AS m)
                ELSE ARRAY(SELECT ($54::text[])[($55::integer[])[i]] FROM unnest($49::integer[]) WITH ORDINALITY AS d (i, n) ORDER BY n) END
    -- An event is written after the balances, while the sub-accounts are locked. Events therefore have the order of the changes.
    FROM (SELECT count(*) AS written FROM new_balances) AS locked
    WHERE $7::integer > 0 AND locked.written >= 0
)
SELECT ledger.expect_written((SELECT count(*) FROM new_balances), $20::integer, $5),
       set_config('synchronous_commit', $43::text, true)
