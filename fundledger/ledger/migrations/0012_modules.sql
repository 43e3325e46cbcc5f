-- Ids are a module's own: (module, id) counts once for vouchers and holds, and everything that means something is under a
-- MAC (layout 2, see security/canonical.py). Rows that exist stay of layout 1 until the daemon mac_sweep brings them over.

-- Before this, modules shared their ids, and there were two: the reference of what the fund service posts is `fund:` and
-- an order's id; all others were sent by `dev`. A reversal goes to the module of what it reverses.
ALTER TABLE ledger.vouchers
    ADD COLUMN module text NOT NULL DEFAULT 'dev',
    ADD COLUMN shared_id boolean NOT NULL DEFAULT true,
    ADD COLUMN layout smallint NOT NULL DEFAULT 1;
ALTER TABLE ledger.vouchers DISABLE TRIGGER vouchers_append_only;
UPDATE ledger.vouchers v SET module = 'fund'
WHERE v.reference ~ '^fund:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' OR (v.reverses IS NOT NULL AND EXISTS (
    SELECT FROM ledger.vouchers o
    WHERE o.id = v.reverses AND o.reference ~ '^fund:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
));
ALTER TABLE ledger.vouchers
    ALTER COLUMN module DROP DEFAULT,
    ALTER COLUMN shared_id SET DEFAULT false,
    ALTER COLUMN layout SET DEFAULT 2,
    DROP CONSTRAINT vouchers_id_once,
    -- The id first: whoever looks for ids looks for those of one module or two.
    ADD CONSTRAINT vouchers_id_once PRIMARY KEY (id, module);
DROP INDEX ledger.vouchers_reversed_once;
CREATE UNIQUE INDEX vouchers_reversed_once ON ledger.vouchers (reverses, module)
    WHERE reverses IS NOT NULL AND refusal IS NULL;
CREATE INDEX vouchers_to_sweep ON ledger.vouchers (id, module) WHERE layout = 1;
COMMENT ON COLUMN ledger.vouchers.module IS 'the module that posted it; a voucher reverses, and captures, only what is its module''s';
COMMENT ON COLUMN ledger.vouchers.shared_id IS 'recorded when ids were one namespace: what names a voucher without a module means this one';
COMMENT ON COLUMN ledger.vouchers.layout IS 'the version of the layout that its MAC covers';

-- What names vouchers of one module says which; what was written before names the one voucher that had the id then.
ALTER TABLE ledger.entries ADD COLUMN module text;
COMMENT ON COLUMN ledger.entries.module IS 'of its voucher, or of all that it sums; null: those with shared_id';
ALTER TABLE ledger.buffered_entries ADD COLUMN module text;
ALTER TABLE ledger.outbox ADD COLUMN modules text[]
    CONSTRAINT outbox_modules CHECK (modules IS NULL OR (
        cardinality(modules) IN (1, cardinality(vouchers)) AND array_ndims(modules) = 1 AND array_position(modules, NULL) IS NULL
    ) IS TRUE);
COMMENT ON COLUMN ledger.outbox.modules IS 'of the vouchers, one for each, or one for all; null: those with shared_id';

ALTER TABLE ledger.holds
    ADD COLUMN module text NOT NULL DEFAULT 'dev',
    ADD COLUMN layout smallint NOT NULL DEFAULT 1;
ALTER TABLE ledger.holds
    ALTER COLUMN module DROP DEFAULT,
    ALTER COLUMN layout SET DEFAULT 2,
    DROP CONSTRAINT holds_id_once,
    ADD CONSTRAINT holds_id_once PRIMARY KEY (id, module);
CREATE INDEX holds_to_sweep ON ledger.holds (id, module) WHERE layout = 1;

ALTER TABLE ledger.accounts
    ADD COLUMN module text,
    ADD COLUMN layout smallint NOT NULL DEFAULT 1;
ALTER TABLE ledger.accounts ALTER COLUMN layout SET DEFAULT 2;
CREATE INDEX accounts_to_sweep ON ledger.accounts (number) WHERE layout = 1;
COMMENT ON COLUMN ledger.accounts.module IS 'the module that opened it; null: before that was recorded';

-- A row that did not verify keeps its figures and its MAC; the mark is beside them and freezes it.
ALTER TABLE ledger.sub_accounts ADD COLUMN suspect boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ledger.sub_accounts.suspect IS 'it was found not to match its MAC: kept as it was found, and frozen';

-- Evidence is chained: each row's MAC covers the one before, and the head says how many there are.
ALTER TABLE ledger.account_events
    ADD COLUMN layout smallint NOT NULL DEFAULT 1,
    ADD COLUMN seq bigint,
    ADD COLUMN key_version smallint,
    ADD COLUMN mac bytea,
    ADD CONSTRAINT account_events_seq_once UNIQUE (seq);
ALTER TABLE ledger.account_events ALTER COLUMN layout SET DEFAULT 2;
CREATE INDEX account_events_to_sweep ON ledger.account_events (id) WHERE layout = 1;
ALTER TABLE ledger.integrity_findings
    ALTER COLUMN shard DROP NOT NULL,
    ALTER COLUMN account_number DROP NOT NULL,
    ALTER COLUMN slot DROP NOT NULL,
    ADD COLUMN kind text NOT NULL DEFAULT 'sub_account',
    ADD COLUMN subject text,
    ADD COLUMN layout smallint NOT NULL DEFAULT 1,
    ADD COLUMN seq bigint,
    ADD COLUMN key_version smallint,
    ADD COLUMN mac bytea,
    ADD CONSTRAINT integrity_findings_seq_once UNIQUE (seq);
ALTER TABLE ledger.integrity_findings ALTER COLUMN kind DROP DEFAULT, ALTER COLUMN layout SET DEFAULT 2;
CREATE INDEX integrity_findings_to_sweep ON ledger.integrity_findings (id) WHERE layout = 1;
DROP INDEX ledger.integrity_findings_by_account;
CREATE UNIQUE INDEX integrity_findings_subject_once ON ledger.integrity_findings (kind, subject) WHERE subject IS NOT NULL;
COMMENT ON COLUMN ledger.integrity_findings.subject IS 'which voucher, hold or account it is; null of a sub-account';

CREATE TABLE ledger.chains (
    name text NOT NULL CONSTRAINT chains_pkey PRIMARY KEY CONSTRAINT chains_name CHECK (name IN ('account_events', 'integrity_findings')),
    seq bigint NOT NULL DEFAULT 0,
    last_mac bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    key_version smallint,
    mac bytea
);
INSERT INTO ledger.chains (name) VALUES ('account_events'), ('integrity_findings');
COMMENT ON TABLE ledger.chains IS 'how long each chain of evidence is, and how it ends; its row is locked by whoever adds to it';

-- Append-only, but for the daemon that brings a row to layout 2: its MAC may change, once, and nothing else.
CREATE FUNCTION ledger.refuse_change_but_mac() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected ledger.vouchers%ROWTYPE;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.layout = 1 AND NEW.layout = 2 THEN
        expected := OLD;
        expected.layout := NEW.layout;
        expected.key_version := NEW.key_version;
        expected.mac := NEW.mac;
        IF NEW *= expected THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Likewise evidence of before: it may be chained, once.
CREATE FUNCTION ledger.refuse_change_but_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected record;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.layout = 1 AND NEW.layout = 2 THEN
        expected := OLD;
        expected.layout := NEW.layout;
        expected.seq := NEW.seq;
        expected.key_version := NEW.key_version;
        expected.mac := NEW.mac;
        IF NEW *= expected THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

DO $$
DECLARE
    of record;
BEGIN
    FOR of IN SELECT * FROM (VALUES ('vouchers', 'mac'), ('account_events', 'chain'), ('integrity_findings', 'chain')) AS t (name, but) LOOP
        EXECUTE format('DROP TRIGGER %I ON ledger.%I', of.name || '_append_only', of.name);
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON ledger.%I FOR EACH ROW EXECUTE FUNCTION ledger.%I()',
                       of.name || '_append_only', of.name, 'refuse_change_but_' || of.but);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER %I', of.name, of.name || '_append_only');
    END LOOP;
END $$;
CREATE TRIGGER chains_kept BEFORE DELETE ON ledger.chains FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.chains ENABLE ALWAYS TRIGGER chains_kept;

DROP VIEW ledger.journal;
-- For people: times, sides and account ids instead of numbers; of a summary, how many lines it sums.
CREATE VIEW ledger.journal AS
SELECT e.posted_at, e.accounting_date, a.id AS account, e.slot, e.seq, coalesce(v.type, 'summary') AS type,
       CASE WHEN e.amount > 0 THEN 'credit' ELSE 'debit' END AS side, abs(e.amount) AS amount,
       e.balance_after * s.normal AS balance_after, a.currency, v.module, e.voucher_id, cardinality(e.vouchers) AS summed
FROM ledger.entries e
JOIN ledger.accounts a ON a.number = e.account_number
JOIN ledger.sub_accounts s ON s.shard = e.shard AND s.account_number = e.account_number AND s.slot = e.slot
LEFT JOIN ledger.vouchers v ON v.id = e.voucher_id AND (v.module = e.module OR (e.module IS NULL AND v.shared_id));

-- As before, by module.
CREATE OR REPLACE VIEW ledger.line_counts_due AS
WITH split AS (
    SELECT s.account_number FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number
    WHERE a.type NOT IN ('bank', 'fee_income', 'channel_expense', 'payout_transit', 'suspense')
    GROUP BY s.account_number HAVING count(*) > 1
), parts AS (
    SELECT e.account_number, e.slot, e.seq, e.voucher_id, e.module, count(*) OVER w AS entries,
           min(e.slot) OVER w <> max(e.slot) OVER w AS several,
           row_number() OVER (PARTITION BY e.account_number, e.voucher_id, e.module ORDER BY e.slot DESC, e.seq DESC) AS from_the_last
    FROM split JOIN ledger.entries e ON e.account_number = split.account_number
    WHERE e.voucher_id IS NOT NULL
    WINDOW w AS (PARTITION BY e.account_number, e.voucher_id, e.module)
), deltas AS (
    SELECT p.account_number, p.slot, p.seq,
           CASE WHEN own.lines * 2 < cardinality(v.lines) AND p.from_the_last = 1 THEN own.lines - 1 ELSE -1 END AS delta
    FROM parts p JOIN ledger.vouchers v ON v.id = p.voucher_id
         AND (v.module = p.module OR (p.module IS NULL AND v.shared_id))
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
