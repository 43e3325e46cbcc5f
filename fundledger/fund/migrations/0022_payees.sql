-- Payees: the bank accounts to which merchants withdraw. Payout files: withdrawals that are exported for a bank, and their results.

-- A payee gets the id of the change that registered it, and its account never changes: a corrected account is a new payee.
CREATE TABLE fund.payees (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT payees_seq_once UNIQUE,
    id uuid NOT NULL CONSTRAINT payees_pkey PRIMARY KEY,
    merchant text NOT NULL,
    holder text NOT NULL,
    iban text,
    account text,
    bank_code text,
    currency text NOT NULL,
    state text NOT NULL CONSTRAINT payees_state CHECK (state IN ('active', 'disabled')),
    registered_by text NOT NULL,
    created_at timestamptz NOT NULL,
    usable_from timestamptz NOT NULL,
    replaces uuid,
    disabled_at timestamptz,
    disabled_by text,
    disabled_why text,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT payees_account CHECK ((iban IS NULL) <> (account IS NULL) AND (account IS NULL OR bank_code IS NOT NULL)),
    CONSTRAINT payees_usable_from CHECK (usable_from >= created_at),
    CONSTRAINT payees_disabled CHECK ((state = 'disabled') = (disabled_at IS NOT NULL) AND (disabled_at IS NULL) = (disabled_by IS NULL))
);
COMMENT ON COLUMN fund.payees.usable_from IS 'the end of the cooling time: earlier withdrawals to the payee are refused';
COMMENT ON COLUMN fund.payees.account IS 'the national account number, if the payee has no IBAN; bank_code: the code of its bank, or a BIC';
COMMENT ON COLUMN fund.payees.replaces IS 'the payee that was disabled when this one was registered';
CREATE INDEX payees_by_merchant ON fund.payees (merchant, seq);
CREATE UNIQUE INDEX payees_active_once ON fund.payees (merchant, currency, coalesce(iban, account), coalesce(bank_code, ''))
    WHERE state = 'active';
-- A payee is disabled once, permanently. Nothing else of it changes.
CREATE FUNCTION fund.refuse_change_of_payee() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected fund.payees%ROWTYPE;
BEGIN
    expected := OLD;
    expected.state := NEW.state; expected.disabled_at := NEW.disabled_at; expected.disabled_by := NEW.disabled_by;
    expected.disabled_why := NEW.disabled_why; expected.mac_key := NEW.mac_key; expected.mac := NEW.mac;
    IF OLD.state = 'active' AND NEW.state = 'disabled' AND NEW *= expected THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'payee %: this update is refused', OLD.id
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER payees_forward BEFORE UPDATE ON fund.payees FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_of_payee();
ALTER TABLE fund.payees ENABLE ALWAYS TRIGGER payees_forward;
CREATE TRIGGER payees_no_delete BEFORE DELETE ON fund.payees FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER payees_no_truncate BEFORE TRUNCATE ON fund.payees FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.payees ENABLE ALWAYS TRIGGER payees_no_delete;
ALTER TABLE fund.payees ENABLE ALWAYS TRIGGER payees_no_truncate;

ALTER TABLE fund.orders ADD COLUMN payee uuid CONSTRAINT orders_payee CHECK (payee IS NULL OR kind = 'withdrawal');
COMMENT ON COLUMN fund.orders.payee IS 'of a withdrawal: the payee to which it is paid out; null: the merchant had no payee';

-- A payout file is inserted with its payouts, in one transaction, and never changes. `content` is what the bank gets, byte by byte.
CREATE TABLE fund.payout_files (
    channel text NOT NULL,
    file_no bigint NOT NULL CONSTRAINT payout_files_file_no CHECK (file_no > 0),
    currency text NOT NULL,
    format text NOT NULL CONSTRAINT payout_files_format CHECK (format IN ('csv', 'pain.001')),
    lines integer NOT NULL CONSTRAINT payout_files_lines CHECK (lines BETWEEN 1 AND 10000),
    total bigint NOT NULL CONSTRAINT payout_files_total CHECK (total > 0),
    digest bytea NOT NULL,
    content bytea NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT payout_files_pkey PRIMARY KEY (channel, file_no),
    CONSTRAINT payout_files_digest CHECK (digest = sha256(content))
);

-- An import of results of a payout file is inserted with its report, in the transaction that records the results.
CREATE TABLE fund.payout_results (
    channel text NOT NULL,
    file_no bigint NOT NULL,
    digest bytea NOT NULL,
    format text NOT NULL,
    lines integer NOT NULL,
    report text NOT NULL,
    imported_by text NOT NULL,
    at timestamptz NOT NULL,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT payout_results_pkey PRIMARY KEY (channel, file_no, digest)
);
COMMENT ON COLUMN fund.payout_results.digest IS 'the SHA-256 of the imported content: the same content is imported once';
COMMENT ON COLUMN fund.payout_results.report IS 'the outcome of each line, as JSON';

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['payout_files', 'payout_results'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;

-- A payout in a file is not polled, so it has no due time. Its result is recorded before the end of its withdrawal is.
ALTER TABLE fund.payouts
    ADD COLUMN file_no bigint,
    ADD COLUMN line_no integer,
    ADD COLUMN reported text,
    ADD COLUMN reported_reason text,
    ADD CONSTRAINT payouts_file CHECK ((file_no IS NULL) = (line_no IS NULL)),
    ADD CONSTRAINT payouts_reported
        CHECK (reported IS NULL OR (reported IN ('paid', 'bounced') AND file_no IS NOT NULL)),
    ADD CONSTRAINT payouts_of_file FOREIGN KEY (channel, file_no) REFERENCES fund.payout_files (channel, file_no)
        DEFERRABLE INITIALLY DEFERRED;
COMMENT ON COLUMN fund.payouts.file_no IS 'the payout file that has the payout; null: the payout is sent by a call of its channel';
COMMENT ON COLUMN fund.payouts.reported IS 'the result that was imported for a payout in a file; the withdrawal ends like this';
CREATE UNIQUE INDEX payouts_in_file_once ON fund.payouts (channel, file_no, line_no) WHERE file_no IS NOT NULL;
CREATE INDEX payouts_reported_open ON fund.payouts (order_id) WHERE reported IS NOT NULL AND outcome IS NULL;

-- A payout is in one file, permanently, and has one result.
CREATE FUNCTION fund.refuse_change_of_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payout %: an update of its file, or of its imported result, is refused', OLD.order_id
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER payouts_filed_once BEFORE UPDATE ON fund.payouts FOR EACH ROW
    WHEN (NEW.file_no IS DISTINCT FROM OLD.file_no OR NEW.line_no IS DISTINCT FROM OLD.line_no
          OR (OLD.file_no IS NOT NULL AND NEW.channel <> OLD.channel)
          OR (OLD.reported IS NOT NULL AND NEW.reported IS DISTINCT FROM OLD.reported))
    EXECUTE FUNCTION fund.refuse_change_of_payout();
ALTER TABLE fund.payouts ENABLE ALWAYS TRIGGER payouts_filed_once;

-- Shared definitions

ALTER TABLE fund.payouts DROP CONSTRAINT payouts_due_until_known,
    ADD CONSTRAINT payouts_due_until_known CHECK ((due_at IS NULL) = (outcome IS NOT NULL OR file_no IS NOT NULL));
ALTER TABLE fund.channel_findings DROP CONSTRAINT channel_findings_says,
    ADD CONSTRAINT channel_findings_says CHECK (says IN ('paid', 'bounced', 'absent', 'amount', 'voucher', 'unknown', 'repeated'));
COMMENT ON COLUMN fund.channel_findings.says IS 'what the channel says; voucher: what the account service posted differs; unknown: a result names no payout of the file; repeated: a payout has its result already';
COMMENT ON COLUMN fund.channel_findings.order_id IS 'the order; of an unknown reference, an id that is derived from the reference';

-- The payee of the final withdrawal of a merchant that closes.
ALTER TABLE fund.merchants ADD COLUMN final_payee uuid,
    ADD CONSTRAINT merchants_final_payee CHECK (final_payee IS NULL OR final_channel IS NOT NULL);
COMMENT ON COLUMN fund.merchants.final_payee IS 'of a merchant that closes: the payee of its final withdrawal';
