-- For each sub-account, read the number of statement lines minus the number of entries, up to and including a given seq.
-- $1 account number; $2 slots, $3 seqs (aligned). Rows: one per sub-account, in the order given. Locks: none.
SELECT coalesce((
    SELECT c.extra FROM ledger.line_counts c
    WHERE c.account_number = $1 AND c.slot = k.slot AND c.seq <= k.seq ORDER BY c.seq DESC LIMIT 1
), 0) AS extra
FROM unnest($2::integer[], $3::bigint[]) WITH ORDINALITY AS k (slot, seq, place) ORDER BY k.place
