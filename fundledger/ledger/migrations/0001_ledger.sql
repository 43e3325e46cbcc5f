-- The account database: accounts, sub-accounts, vouchers, entries, holds.
-- Amounts and balances are BIGINT minor units; inside the ledger a credit is positive and a debit negative.

CREATE SCHEMA ledger;

CREATE TABLE ledger.settings (
    one boolean NOT NULL DEFAULT true CONSTRAINT settings_one_row PRIMARY KEY CHECK (one),
    ledger_id uuid NOT NULL DEFAULT gen_random_uuid(),
    shards integer NOT NULL CONSTRAINT settings_shards CHECK (shards BETWEEN 1 AND 1024),
    platform_slots integer NOT NULL CONSTRAINT settings_platform_slots CHECK (platform_slots BETWEEN 1 AND 64),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.settings IS 'What was fixed when the ledger was initialised';

CREATE TABLE ledger.accounts (
    number bigint GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    owner text NOT NULL,
    type text NOT NULL,
    currency text NOT NULL,
    shard integer NOT NULL,
    slots integer NOT NULL,
    metadata json,
    created_at timestamptz NOT NULL,
    mac bytea NOT NULL,
    key_version smallint NOT NULL,
    CONSTRAINT accounts_id_once PRIMARY KEY (id),
    CONSTRAINT accounts_number_once UNIQUE (number),
    CONSTRAINT accounts_slots CHECK (slots BETWEEN 1 AND 65536)
);
CREATE INDEX accounts_owner ON ledger.accounts (owner);

-- The only place where a balance is stored. A slot number is unique within its account, over all shards: the shard is
-- placement and no part of a MAC. No index on what changes, and room in each page, so that updates stay HOT.
CREATE TABLE ledger.sub_accounts (
    shard integer NOT NULL,
    account_number bigint NOT NULL,
    slot integer NOT NULL,
    posted bigint NOT NULL,
    held bigint NOT NULL,
    version bigint NOT NULL,
    seq bigint NOT NULL,
    posted_at_us bigint NOT NULL,
    normal smallint NOT NULL,
    bounded boolean NOT NULL,
    status smallint NOT NULL,
    key_version smallint NOT NULL,
    last_entry_mac bytea NOT NULL,
    mac bytea NOT NULL,
    -- The account first: a plan made before the table has statistics must not find it cheap to walk a whole shard.
    CONSTRAINT sub_accounts_pkey PRIMARY KEY (account_number, slot, shard),
    CONSTRAINT sub_accounts_normal CHECK (normal IN (-1, 1)),
    CONSTRAINT sub_accounts_held CHECK (held >= 0),
    CONSTRAINT sub_accounts_floor CHECK (NOT bounded OR normal * posted - held >= 0)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON COLUMN ledger.sub_accounts.normal IS '1: credit-normal, -1: debit-normal; the API shows normal * posted';
COMMENT ON COLUMN ledger.sub_accounts.bounded IS 'available may not fall below zero';
COMMENT ON COLUMN ledger.sub_accounts.seq IS 'number of entries written on this sub-account';
COMMENT ON COLUMN ledger.sub_accounts.version IS 'number of times this row was written';

CREATE FUNCTION ledger.lines_sum(lines bigint[]) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT sum(lines[2 * i]) FROM generate_series(1, cardinality(lines) / 2) AS i);

-- The source documents, and the record that makes each id count once, for ever. A row with a refusal moved nothing.
CREATE TABLE ledger.vouchers (
    shard integer NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    digest bytea NOT NULL,
    lines bigint[] NOT NULL,
    reference text,
    metadata json,
    hold text,
    reverses uuid,
    refusal text,
    batch bigint NOT NULL,
    accounting_date date NOT NULL,
    posted_at timestamptz NOT NULL,
    key_version smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT vouchers_id_once PRIMARY KEY (id),
    -- Two lines are the common case; the function serves the rest.
    CONSTRAINT vouchers_sum_to_zero CHECK (
        CASE WHEN cardinality(lines) = 4 THEN lines[2] = -lines[4] ELSE ledger.lines_sum(lines) = 0 END
    )
);
COMMENT ON COLUMN ledger.vouchers.lines IS 'flat: account number, signed amount (credit positive), account number, ...';
CREATE UNIQUE INDEX vouchers_reversed_once ON ledger.vouchers (reverses) WHERE reverses IS NOT NULL AND refusal IS NULL;

-- The journal. Insert only.
CREATE TABLE ledger.entries (
    shard integer NOT NULL,
    account_number bigint NOT NULL,
    slot integer NOT NULL,
    seq bigint NOT NULL,
    voucher_id uuid NOT NULL,
    amount bigint NOT NULL,
    balance_after bigint NOT NULL,
    accounting_date date NOT NULL,
    posted_at timestamptz NOT NULL,
    key_version smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT entries_pkey PRIMARY KEY (shard, account_number, slot, seq)
);

CREATE TABLE ledger.holds (
    shard integer NOT NULL,
    id text NOT NULL,
    account_number bigint NOT NULL,
    slot integer NOT NULL,
    amount bigint NOT NULL,
    captured bigint NOT NULL,
    status smallint NOT NULL,
    voucher_id uuid,
    digest bytea NOT NULL,
    refusal text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    ended_at timestamptz,
    key_version smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT holds_id_once PRIMARY KEY (id),
    CONSTRAINT holds_amount CHECK (amount > 0),
    CONSTRAINT holds_captured CHECK (captured BETWEEN 0 AND amount)
) WITH (fillfactor = 80);
CREATE INDEX holds_by_account ON ledger.holds (account_number, created_at);
CREATE INDEX holds_to_expire ON ledger.holds (expires_at) WHERE status = 0 AND expires_at IS NOT NULL;

-- Who changed an account's status, when and why. Insert only.
CREATE TABLE ledger.account_events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT account_events_pkey PRIMARY KEY,
    account_number bigint NOT NULL,
    status smallint NOT NULL,
    reason text NOT NULL,
    module text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX account_events_by_account ON ledger.account_events (account_number, id);

-- A row whose MAC did not verify, as it was found. Insert only.
CREATE TABLE ledger.integrity_findings (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT integrity_findings_pkey PRIMARY KEY,
    shard integer NOT NULL,
    account_number bigint NOT NULL,
    slot integer NOT NULL,
    evidence json NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['vouchers', 'entries', 'account_events', 'integrity_findings'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON ledger.%I FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON ledger.%I FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;

-- posted_at never falls along seq, so the last entry at a time is found by bisection: as many index probes as seq has bits.
CREATE FUNCTION ledger.seq_at(of_shard integer, of_account bigint, of_slot integer, at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
    found_at timestamptz;
BEGIN
    SELECT e.seq INTO high FROM ledger.entries e
    WHERE e.shard = of_shard AND e.account_number = of_account AND e.slot = of_slot ORDER BY e.seq DESC LIMIT 1;
    high := coalesce(high, 0);
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT e.posted_at INTO found_at FROM ledger.entries e
        WHERE e.shard = of_shard AND e.account_number = of_account AND e.slot = of_slot AND e.seq = middle;
        IF found_at <= at THEN low := middle; ELSE high := middle - 1; END IF;
    END LOOP;
    RETURN low;
END $$;
COMMENT ON FUNCTION ledger.seq_at IS 'the seq of the last entry at or before a time, 0 when there is none';

CREATE FUNCTION ledger.expect_written(written bigint, expected bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF written <> expected THEN
        RAISE EXCEPTION 'a sub-account changed since it was read: % of % written', written, expected USING ERRCODE = 'FL001';
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION ledger.expect_written IS 'fails the statement that wrote fewer balances than it decided';

-- For people: times, sides and account ids instead of numbers.
CREATE VIEW ledger.journal AS
SELECT e.posted_at, e.accounting_date, a.id AS account, e.slot, e.seq, v.type,
       CASE WHEN e.amount > 0 THEN 'credit' ELSE 'debit' END AS side, abs(e.amount) AS amount,
       e.balance_after * s.normal AS balance_after, a.currency, e.voucher_id
FROM ledger.entries e
JOIN ledger.accounts a ON a.number = e.account_number
JOIN ledger.sub_accounts s ON s.shard = e.shard AND s.account_number = e.account_number AND s.slot = e.slot
JOIN ledger.vouchers v ON v.id = e.voucher_id;
