-- What decides money is under MACs (fund/macs.py): what becomes of an order, sums, merchants, fee rules, payouts, webhooks.
-- Rows that exist get their MACs from the migration, where there is nothing that they could be compared with, and from the
-- daemon fund_mac_sweep. The new columns have no default: a fund service of before cannot insert.

ALTER TABLE fund.orders ADD COLUMN layout smallint NOT NULL DEFAULT 1 CONSTRAINT orders_layout CHECK (layout IN (1, 2));
ALTER TABLE fund.orders ALTER COLUMN layout DROP DEFAULT,
    ADD CONSTRAINT orders_mac_of_layout CHECK (layout = 1 OR mac IS NOT NULL);
COMMENT ON COLUMN fund.orders.layout IS 'what its MAC covers: 1 its terms, 2 also what became of it, and its voucher_format';
-- A time outside of these cannot be read at all, and would hold up the orders that are read with it.
ALTER TABLE fund.orders ADD CONSTRAINT orders_times CHECK (
    created_at >= '1970-01-01Z' AND created_at < '10000-01-01Z' AND coalesce(posted_at, created_at) >= '1970-01-01Z'
    AND coalesce(posted_at, created_at) < '10000-01-01Z' AND coalesce(due_at, created_at) >= '1970-01-01Z'
    AND coalesce(due_at, created_at) < '10000-01-01Z'
);
CREATE INDEX orders_to_sweep ON fund.orders (seq) WHERE layout = 1;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['fund.payments', 'fund.withdrawal_days', 'fund.merchants', 'fund.fee_rules', 'fund.payouts',
                                'outbox.webhooks'] LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN mac_key smallint NOT NULL DEFAULT 0, ADD COLUMN mac bytea NOT NULL DEFAULT '''','
                       ' ADD CONSTRAINT %I CHECK ((mac_key = 0) = (mac = ''''))', name, split_part(name, '.', 2) || '_mac');
        EXECUTE format('ALTER TABLE %s ALTER COLUMN mac_key DROP DEFAULT, ALTER COLUMN mac DROP DEFAULT', name);
        EXECUTE format('COMMENT ON COLUMN %s.mac_key IS ''the key of its MAC; 0: it is older than MACs and has none''', name);
    END LOOP;
END $$;
CREATE INDEX payments_to_sweep ON fund.payments (order_id) WHERE mac_key = 0;
CREATE INDEX withdrawal_days_to_sweep ON fund.withdrawal_days (merchant, day) WHERE mac_key = 0;
CREATE INDEX payouts_to_sweep ON fund.payouts (order_id) WHERE mac_key = 0;

CREATE TABLE fund.unswept (
    one boolean NOT NULL DEFAULT true CONSTRAINT unswept_one_row PRIMARY KEY CONSTRAINT unswept_one CHECK (one),
    until_seq bigint NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON TABLE fund.unswept IS 'rows may be of an earlier layout, orders up to this seq; no row: the sweep is complete, and none may';

-- Append-only, but for the MAC that the migration gives to rows of before: once, and nothing else.
CREATE FUNCTION fund.refuse_change_but_mac() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected fund.fee_rules%ROWTYPE;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.mac_key = 0 AND NEW.mac_key <> 0 THEN
        expected := OLD;
        expected.mac_key := NEW.mac_key;
        expected.mac := NEW.mac;
        IF NEW *= expected THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
DROP TRIGGER fee_rules_append_only ON fund.fee_rules;
CREATE TRIGGER fee_rules_append_only BEFORE UPDATE OR DELETE ON fund.fee_rules FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_but_mac();
ALTER TABLE fund.fee_rules ENABLE ALWAYS TRIGGER fee_rules_append_only;

-- Sums are changed and never gone: one that was gone would begin again with nothing.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['payments', 'withdrawal_days'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_no_delete', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_delete');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;

-- Rows that did not match their MACs, once each, chained as those of the ledger. Insert only.
CREATE TABLE fund.integrity_findings (
    seq bigint NOT NULL CONSTRAINT integrity_findings_pkey PRIMARY KEY,
    kind text NOT NULL,
    key text NOT NULL,
    evidence text NOT NULL,
    at timestamptz NOT NULL,
    key_version smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT integrity_findings_once UNIQUE (kind, key)
);
CREATE TRIGGER integrity_findings_append_only BEFORE UPDATE OR DELETE ON fund.integrity_findings FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER integrity_findings_no_truncate BEFORE TRUNCATE ON fund.integrity_findings FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.integrity_findings ENABLE ALWAYS TRIGGER integrity_findings_append_only;
ALTER TABLE fund.integrity_findings ENABLE ALWAYS TRIGGER integrity_findings_no_truncate;

CREATE TABLE fund.findings_head (
    one boolean NOT NULL DEFAULT true CONSTRAINT findings_head_one_row PRIMARY KEY CONSTRAINT findings_head_one CHECK (one),
    seq bigint NOT NULL DEFAULT 0,
    last_mac bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    key_version smallint,
    mac bytea
);
INSERT INTO fund.findings_head DEFAULT VALUES;
CREATE TRIGGER findings_head_kept BEFORE DELETE ON fund.findings_head FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.findings_head ENABLE ALWAYS TRIGGER findings_head_kept;
