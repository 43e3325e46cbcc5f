-- Buffered posting: credits of an account whose policy is to buffer them, until they are folded into its balance and journal.

-- A preference, like `slots`; the truth is slot 0's, under its lock and its MAC.
ALTER TABLE ledger.accounts ADD COLUMN buffered boolean NOT NULL DEFAULT false;
ALTER TABLE ledger.sub_accounts ADD COLUMN buffered boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ledger.sub_accounts.buffered IS 'of slot 0 of a merchant''s account: its credits may be in buffered_entries';
ALTER TABLE ledger.routes ADD COLUMN buffered boolean NOT NULL DEFAULT false;
ALTER TABLE ledger.route_events ADD COLUMN buffered boolean;

-- Money that is neither in a balance nor in the journal yet. A row is written once, in the transaction of its voucher, and
-- deleted once, in the transaction that folds it. Of each batch an account has rows 1 to `of`, all of them or none.
CREATE TABLE ledger.buffered_entries (
    account_number bigint NOT NULL,
    batch bigint NOT NULL,
    number integer NOT NULL,
    of integer NOT NULL,
    voucher_id uuid NOT NULL,
    amount bigint NOT NULL,
    accounting_date date NOT NULL,
    posted_at timestamptz NOT NULL,
    key_version smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT buffered_entries_pkey PRIMARY KEY (account_number, batch, number),
    CONSTRAINT buffered_entries_amount CHECK (amount > 0),
    CONSTRAINT buffered_entries_number CHECK (number BETWEEN 1 AND of)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE TRIGGER buffered_entries_no_change BEFORE UPDATE ON ledger.buffered_entries
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER buffered_entries_no_truncate BEFORE TRUNCATE ON ledger.buffered_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.buffered_entries ENABLE ALWAYS TRIGGER buffered_entries_no_change;
ALTER TABLE ledger.buffered_entries ENABLE ALWAYS TRIGGER buffered_entries_no_truncate;

CREATE FUNCTION ledger.expect_buffering(buffering bigint, expected bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF buffering <> expected THEN
        RAISE EXCEPTION 'an account was frozen, closed or is no longer buffered: % of % are', buffering, expected
            USING ERRCODE = 'FL002';
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION ledger.expect_buffering IS 'fails the statement that buffers credits of an account that takes none';
