-- Statements of accounts: how many lines an entry stands for, and up to which time a statement is complete.

-- Most entries are one line of a statement. Where the lines of a sub-account are another number than its entries, a row says
-- how many more (or fewer) they are, up to and with that entry: a summary is many lines, a move between slots is none, and a
-- line that was taken from several slots is one line, at its last entry. Insert only.
CREATE TABLE ledger.line_counts (
    account_number bigint NOT NULL,
    slot integer NOT NULL,
    seq bigint NOT NULL,
    extra bigint NOT NULL,
    CONSTRAINT line_counts_pkey PRIMARY KEY (account_number, slot, seq)
);
COMMENT ON COLUMN ledger.line_counts.extra IS 'lines of the sub-account up to and with this entry, less its seq';
CREATE TRIGGER line_counts_append_only BEFORE UPDATE OR DELETE ON ledger.line_counts
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER line_counts_no_truncate BEFORE TRUNCATE ON ledger.line_counts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.line_counts ENABLE ALWAYS TRIGGER line_counts_append_only;
ALTER TABLE ledger.line_counts ENABLE ALWAYS TRIGGER line_counts_no_truncate;

-- What line_counts has to say, derived from entries and vouchers. Reads all entries: for a migration and for `verify`.
CREATE VIEW ledger.line_counts_due AS
WITH split AS (
    SELECT s.account_number FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number
    WHERE a.type NOT IN ('bank', 'fee_income', 'channel_expense', 'payout_transit', 'suspense')
    GROUP BY s.account_number HAVING count(*) > 1
), parts AS (
    SELECT e.account_number, e.slot, e.seq, e.voucher_id, count(*) OVER w AS entries,
           min(e.slot) OVER w <> max(e.slot) OVER w AS several,
           row_number() OVER (PARTITION BY e.account_number, e.voucher_id ORDER BY e.slot DESC, e.seq DESC) AS from_the_last
    FROM split JOIN ledger.entries e ON e.account_number = split.account_number
    WHERE e.voucher_id IS NOT NULL
    WINDOW w AS (PARTITION BY e.account_number, e.voucher_id)
), deltas AS (
    SELECT p.account_number, p.slot, p.seq,
           CASE WHEN own.lines * 2 < cardinality(v.lines) AND p.from_the_last = 1 THEN own.lines - 1 ELSE -1 END AS delta
    FROM parts p JOIN ledger.vouchers v ON v.id = p.voucher_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS lines FROM generate_series(1, cardinality(v.lines) / 2) AS i
        WHERE v.lines[2 * i - 1] = p.account_number
    ) AS own
    WHERE p.several OR p.entries <> own.lines
    UNION ALL
    SELECT e.account_number, e.slot, e.seq, cardinality(e.vouchers) - 1 FROM ledger.entries e WHERE e.vouchers IS NOT NULL
)
SELECT d.account_number, d.slot, d.seq,
       sum(d.delta) OVER (PARTITION BY d.account_number, d.slot ORDER BY d.seq)::bigint AS extra
FROM deltas d;

INSERT INTO ledger.line_counts (account_number, slot, seq, extra) SELECT d.* FROM ledger.line_counts_due d;

-- Statements that were read are complete up to this time (us): no entry gets an earlier one. Not transactional, on purpose: a
-- batch sees it the moment that it is raised.
CREATE SEQUENCE ledger.statement_mark MINVALUE 0 START 0;

CREATE FUNCTION ledger.raise_statement_mark(upto_us bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('ledger.statement_mark', 0));
    IF coalesce(pg_sequence_last_value('ledger.statement_mark'::regclass), 0) < upto_us THEN
        PERFORM setval('ledger.statement_mark'::regclass, upto_us);
    END IF;
END $$;
COMMENT ON FUNCTION ledger.raise_statement_mark IS 'from now on no entry is written with a time up to this one';

CREATE FUNCTION ledger.expect_written(written bigint, expected bigint, posted_at_us bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    -- Read after the balances were written: this transaction has an id and its locks, so a reader that raises the mark later
    -- waits for it.
    mark bigint := pg_sequence_last_value('ledger.statement_mark'::regclass);
BEGIN
    IF written <> expected THEN
        RAISE EXCEPTION 'a sub-account changed since it was read: % of % written', written, expected USING ERRCODE = 'FL001';
    END IF;
    IF expected > 0 AND posted_at_us <= mark THEN
        RAISE EXCEPTION 'a statement was read that is complete up to a later time' USING ERRCODE = 'FL003', DETAIL = mark::text;
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION ledger.expect_written(bigint, bigint, bigint) IS
    'fails the statement that wrote fewer balances than it decided, or wrote them at a time up to which statements are complete';
