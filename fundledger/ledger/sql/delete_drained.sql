-- Delete the buffered credits that this transaction posts. The query fails (FL001) if one of the credits is missing.
-- $1 account numbers, $2 batches (aligned), $3 number of buffered credits. Rows: one.
-- Locks: the buffered credits; the caller has locked slot 0 of each account.
WITH drained AS (
    DELETE FROM ledger.buffered_entries b USING unnest($1::bigint[], $2::bigint[]) AS k (account_number, batch)
    WHERE b.account_number = k.account_number AND b.batch = k.batch
    RETURNING 1
)
SELECT ledger.expect_written((SELECT count(*) FROM drained), $3::bigint)
