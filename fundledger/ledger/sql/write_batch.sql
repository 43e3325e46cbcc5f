-- Write a batch of one shard: vouchers, new balances, entries. The only statement that changes a balance.
-- All of it or nothing: a sub-account that is not as it was when the batch was decided fails the statement (FL001).
-- Columns come as arrays of fixed-width elements and as bytes in pieces of 32, both read by position: measured, a
-- quarter cheaper than one unnest a column. Columns that are mostly null come empty when they are all null.
-- $1 shard, $2 batch, $3 accounting date, $4 posted_at, $5 posted_at in microseconds, $6 key version;
-- vouchers: $7 how many, $8 ids (after them, ids that only entries refer to), $9 the types that occur, $10 which of
-- them, empty when there is one type only, $11 digests, $12 lines, flat, $13 where each voucher's lines end, empty when
-- each has two, $14 MACs, $15 references, $16 metadata, $17 holds, $18 what they reverse, $19 refusals;
-- sub-accounts: $20 how many, $21 account numbers, $22 slots, $23 posted, $24 held, $25 versions, $26 seqs,
-- $27 statuses, $28 MACs of the last entry, $29 MACs, $38 posted, $39 held, $40 versions, $41 statuses, $42 MACs before;
-- $43 synchronous_commit of this transaction: off only if whoever is answered waits for a flush (ADR 0013);
-- $44 how many slots there are, of the first ones that tell so, aligned with $21; empty when no slots are opened;
-- $48 whether credits may be buffered, likewise, empty unless a policy changes.
-- entries: $30 how many, summaries first, $31 account numbers, $32 slots, empty when all are 0, $33 seqs, $34 which of $8
-- (0: a summary), $35 amounts, $36 balances, $37 MACs; $45 which of $8 summaries sum, flat, $46 where those of each summary end, $47 accounting dates
-- that are not $3; each empty when there are none.
-- $49 which of $8 were decided first to last, empty when that is their order: the outbox tells them so.
-- $50 account numbers, $51 slots, $52 seqs of entries that are not one line of a statement each, $53 by how many lines more
-- (or fewer) they and those before them in this batch are on that slot (aligned). Not before any statement's mark (FL003).
-- $54 the modules that occur, $55 which of them each of $8 is of, empty when there is one module only.
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
      AND s.shard + 0 = $1 -- not by the index: whoever planned this on a small table would walk the whole shard for ever
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
               -- All that a summary sums are of one module: that of the first.
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
    -- Not before the balances are written, and with them locked: so events have the order of what they tell of.
    FROM (SELECT count(*) AS written FROM new_balances) AS locked
    WHERE $7::integer > 0 AND locked.written >= 0
)
SELECT ledger.expect_written((SELECT count(*) FROM new_balances), $20::integer, $5),
       set_config('synchronous_commit', $43::text, true)
