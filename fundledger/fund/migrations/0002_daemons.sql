-- Who runs which daemon; what was told to whom; what a day came to.

CREATE SCHEMA IF NOT EXISTS daemons;

-- One database may hold both services: then they share this table, as the account database's 0005 makes it.
-- Which process runs which daemon, and what became of its runs. All times are this database's: nobody else's clock says
-- when a lease has ended. `fence` grows whenever another process takes the lease.
CREATE TABLE IF NOT EXISTS daemons.leases (
    name text NOT NULL CONSTRAINT leases_pkey PRIMARY KEY,
    holder text,
    fence bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at timestamptz,
    alarm_after_s double precision NOT NULL CONSTRAINT leases_alarm_after_s CHECK (alarm_after_s > 0),
    known_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_started_at timestamptz,
    last_success_at timestamptz,
    last_error text,
    lag_s double precision NOT NULL DEFAULT 0,
    runs bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN daemons.leases.alarm_after_s IS 'without a success for so long, it is overdue';
COMMENT ON COLUMN daemons.leases.known_since IS 'what never succeeded is overdue since then';

-- A transaction has its id before it draws a seq: outbox/horizon.py needs that, to know when nothing before a seq can
-- come any more. An identity column is drawn before the row is inserted, and so before there need be an id.
ALTER TABLE fund.events ALTER COLUMN seq DROP IDENTITY;
CREATE SEQUENCE fund.events_outbox_seq OWNED BY fund.events.seq;
SELECT setval('fund.events_outbox_seq', max(seq)) FROM fund.events HAVING max(seq) IS NOT NULL;
ALTER TABLE fund.events ALTER COLUMN seq
    SET DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('fund.events_outbox_seq') END;

CREATE SCHEMA outbox;

-- How far somebody who is told events has been told them.
CREATE TABLE outbox.cursors (
    name text NOT NULL CONSTRAINT cursors_pkey PRIMARY KEY,
    after bigint NOT NULL CONSTRAINT cursors_after CHECK (after >= 0),
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE outbox.webhooks (
    id uuid NOT NULL CONSTRAINT webhooks_pkey PRIMARY KEY,
    merchant text NOT NULL,
    url text NOT NULL,
    events text[],
    secret bytea NOT NULL,
    module text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at timestamptz,
    disabled_why text
);
COMMENT ON COLUMN outbox.webhooks.events IS 'the types that it is told; null: all of its merchant';
CREATE INDEX webhooks_by_merchant ON outbox.webhooks (merchant) WHERE disabled_at IS NULL;

-- One event for one endpoint. `body` is what is sent, byte by byte, however often.
CREATE TABLE outbox.deliveries (
    webhook uuid NOT NULL,
    seq bigint NOT NULL,
    message text NOT NULL,
    body text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CONSTRAINT deliveries_state CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    last_status integer,
    last_error text,
    CONSTRAINT deliveries_pkey PRIMARY KEY (webhook, seq)
) WITH (fillfactor = 80);
CREATE INDEX deliveries_waiting ON outbox.deliveries (webhook, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON outbox.deliveries (webhook, seq) WHERE state = 'dead';
CREATE INDEX deliveries_delivered ON outbox.deliveries (ended_at) WHERE state = 'delivered';

-- A finished day (UTC), summed once. Insert only.
CREATE TABLE fund.day_ends (
    day date NOT NULL CONSTRAINT day_ends_pkey PRIMARY KEY,
    orders bigint NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE fund.day_sums (
    day date NOT NULL,
    merchant text NOT NULL,
    kind text NOT NULL,
    currency text NOT NULL,
    state text NOT NULL,
    orders bigint NOT NULL,
    amount numeric NOT NULL,
    fee numeric NOT NULL,
    CONSTRAINT day_sums_pkey PRIMARY KEY (day, merchant, kind, currency, state)
);
COMMENT ON COLUMN fund.day_sums.state IS 'as it was when the day was closed';
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['day_ends', 'day_sums'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;
