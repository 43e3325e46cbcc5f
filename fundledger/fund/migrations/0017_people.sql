-- People: persons with tokens and roles, and dual control: the requester and the approver of an order have different identities.
-- An identity is a module, or `person:NAME`. The part after `/` in `module` and `approved_by` is a note, and decides nothing.

CREATE TABLE fund.persons (
    name text NOT NULL CONSTRAINT persons_pkey PRIMARY KEY CONSTRAINT persons_name CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    roles text[] NOT NULL CONSTRAINT persons_roles
        CHECK (cardinality(roles) > 0 AND roles <@ ARRAY['maker', 'checker', 'operator', 'auditor']),
    token_digest bytea NOT NULL CONSTRAINT persons_token_once UNIQUE CONSTRAINT persons_token_digest CHECK (length(token_digest) = 32),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    rotated_at timestamptz,
    disabled_at timestamptz,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON COLUMN fund.persons.token_digest IS 'the SHA-256 of the bearer token; the token itself is printed once and never stored';
COMMENT ON COLUMN fund.persons.disabled_at IS 'from this time on, the token authenticates no request';
-- In a history, two persons whose names differ only in case would be indistinguishable.
CREATE UNIQUE INDEX persons_name_once ON fund.persons (lower(name));
-- The name, the roles and the creation of a person stay, a disabled person stays disabled, and no earlier token comes back.
CREATE FUNCTION fund.refuse_change_of_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.disabled_at IS NULL AND (NEW.name, NEW.roles, NEW.created_by, NEW.created_at) = (OLD.name, OLD.roles, OLD.created_by, OLD.created_at)
        AND (NEW.token_digest = OLD.token_digest OR coalesce(NEW.rotated_at >= coalesce(OLD.rotated_at, OLD.created_at), false))
    THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'person %: this update is refused', OLD.name
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER persons_forward BEFORE UPDATE ON fund.persons FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_of_person();
ALTER TABLE fund.persons ENABLE ALWAYS TRIGGER persons_forward;
CREATE TRIGGER persons_no_delete BEFORE DELETE ON fund.persons FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER persons_no_truncate BEFORE TRUNCATE ON fund.persons FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.persons ENABLE ALWAYS TRIGGER persons_no_delete;
ALTER TABLE fund.persons ENABLE ALWAYS TRIGGER persons_no_truncate;

ALTER TABLE fund.orders DROP CONSTRAINT orders_state, DROP CONSTRAINT orders_refused_for_a_reason;
ALTER TABLE fund.orders
    ADD CONSTRAINT orders_state CHECK (state IN ('created', 'posting', 'posted', 'refused', 'sent', 'paid', 'bounced', 'unknown', 'stuck',
                                                 'parked', 'rejected', 'expired')),
    ADD CONSTRAINT orders_refused_for_a_reason
        CHECK ((state IN ('refused', 'stuck', 'rejected', 'expired')) = (problem IS NOT NULL));
CREATE INDEX orders_waiting ON fund.orders (created_at, id) WHERE state = 'created';

-- A copy of the table in fund/model/transitions.py, as in migration 0015.
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal') AND after IN ('posting', 'rejected', 'expired')
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck') OR (after = 'parked' AND kind IN ('payment', 'chargeback'))
        WHEN 'parked' THEN after = 'posting' AND kind IN ('payment', 'chargeback')
        WHEN 'posted' THEN kind = 'withdrawal' AND after IN ('sent', 'paid', 'bounced', 'stuck')
        WHEN 'sent' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind = 'withdrawal' AND after IN ('posted', 'sent', 'unknown'))
        ELSE false
    END;
END $$;

-- As in migration 0013. In addition, an approval needs an approver whose identity differs from that of the requester. This is no
-- CHECK, because older adjustments may have been approved by another person of the same module, and are updated when they are reversed.
CREATE OR REPLACE FUNCTION fund.refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF fund.may_become(OLD.kind, OLD.state, NEW.state) AND NEW.kind = OLD.kind AND (CASE
        WHEN OLD.state = 'created' AND NEW.state = 'posting'
            THEN coalesce(split_part(NEW.approved_by, '/', 1) <> split_part(NEW.module, '/', 1), false)
        WHEN OLD.state <> 'stuck' THEN NEW.state <> 'stuck' OR NEW.stuck_from = OLD.state
        ELSE NEW.state = OLD.stuck_from OR (NEW.state = 'stuck' AND NEW.stuck_from = OLD.stuck_from)
    END) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% %: % is refused', NEW.kind, NEW.id,
        CASE TG_OP WHEN 'INSERT' THEN format('insert as %s', NEW.state) ELSE format('%s to %s', OLD.state, NEW.state) END
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;

DROP TRIGGER orders_first_state ON fund.orders;
CREATE TRIGGER orders_first_state AFTER INSERT ON fund.orders FOR EACH ROW
    WHEN (NEW.state IS DISTINCT FROM CASE
        WHEN NEW.kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal') THEN 'created' ELSE 'posting' END)
    EXECUTE FUNCTION fund.refuse_transition();
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_first_state;

-- The registry of channels: an order through a channel that is not in this table is refused, so a typing error opens no account.
CREATE TABLE fund.channels (
    name text NOT NULL CONSTRAINT channels_name CHECK (name ~ '^[A-Za-z0-9_.-]{1,32}$'),
    currency text NOT NULL,
    bank_account text NOT NULL,
    payout text NOT NULL CONSTRAINT channels_payout CHECK (payout IN ('http', 'file', 'manual')),
    references_unique boolean NOT NULL,
    overdraft bigint CONSTRAINT channels_overdraft CHECK (overdraft >= 0),
    state text NOT NULL CONSTRAINT channels_state CHECK (state IN ('open', 'closed')),
    registered_by text NOT NULL,
    created_at timestamptz NOT NULL,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT channels_pkey PRIMARY KEY (name, currency)
);
COMMENT ON COLUMN fund.channels.bank_account IS 'the id of the bank account in the account service';
COMMENT ON COLUMN fund.channels.payout IS 'http: the service sends payouts; file, manual: a person sends them and reports their end';
COMMENT ON COLUMN fund.channels.references_unique IS 'each payment needs a channel_ref';
COMMENT ON COLUMN fund.channels.overdraft IS 'the amount by which payouts may exceed the balance of the bank account; null: any amount';
COMMENT ON COLUMN fund.channels.registered_by IS '`the settings`, `the upgrade`, or the identity that requested the last change';

-- Changes under dual control of rows that are no orders. The transaction that records an approval also applies the change.
CREATE TABLE fund.changes (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT changes_seq_once UNIQUE,
    id uuid NOT NULL CONSTRAINT changes_pkey PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,
    body text NOT NULL,
    state text NOT NULL CONSTRAINT changes_state CHECK (state IN ('waiting', 'applied', 'rejected', 'expired')),
    maker text NOT NULL,
    made_at timestamptz NOT NULL,
    checker text,
    decided_at timestamptz,
    reason text,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT changes_decided CHECK ((state = 'waiting') = (decided_at IS NULL)),
    CONSTRAINT changes_checked CHECK ((state IN ('applied', 'rejected')) = (checker IS NOT NULL)),
    CONSTRAINT changes_two_identities CHECK (state <> 'applied' OR split_part(checker, '/', 1) <> split_part(maker, '/', 1))
);
COMMENT ON COLUMN fund.changes.body IS 'the requested change, as JSON';
COMMENT ON COLUMN fund.changes.reason IS 'why the change was rejected';
CREATE UNIQUE INDEX changes_waiting_once ON fund.changes (kind, subject) WHERE state = 'waiting';
CREATE INDEX changes_waiting ON fund.changes (made_at) WHERE state = 'waiting';

CREATE FUNCTION fund.refuse_change_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected fund.changes%ROWTYPE;
BEGIN
    expected := OLD;
    expected.state := NEW.state; expected.checker := NEW.checker; expected.decided_at := NEW.decided_at;
    expected.reason := NEW.reason; expected.mac_key := NEW.mac_key; expected.mac := NEW.mac;
    IF OLD.state = 'waiting' AND NEW *= expected THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'change %: an update of a decided change, or of its content, is refused', OLD.id
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER changes_once_decided BEFORE UPDATE ON fund.changes FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_of_change();
ALTER TABLE fund.changes ENABLE ALWAYS TRIGGER changes_once_decided;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['channels', 'changes'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_no_delete', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_delete');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;
