-- The outbox of the ledger: which vouchers a batch recorded, for whoever has to be told. And who runs which daemon.

CREATE SEQUENCE ledger.outbox_seq;
-- A transaction has its id before it draws a seq: outbox/horizon.py needs that, to know when nothing before a seq can
-- come any more. An identity column would be drawn before the row is inserted, and so before there is an id.
CREATE TABLE ledger.outbox (
    seq bigint NOT NULL DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('ledger.outbox_seq') END
        CONSTRAINT outbox_pkey PRIMARY KEY,
    shard integer NOT NULL,
    batch bigint NOT NULL,
    vouchers uuid[] NOT NULL CONSTRAINT outbox_vouchers CHECK (cardinality(vouchers) BETWEEN 1 AND 16383),
    at timestamptz NOT NULL
);
ALTER SEQUENCE ledger.outbox_seq OWNED BY ledger.outbox.seq;
COMMENT ON COLUMN ledger.outbox.vouchers IS 'in the order in which they were decided; those that were refused, too';
CREATE TRIGGER outbox_append_only BEFORE UPDATE OR DELETE ON ledger.outbox
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER outbox_no_truncate BEFORE TRUNCATE ON ledger.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.outbox ENABLE ALWAYS TRIGGER outbox_append_only;
ALTER TABLE ledger.outbox ENABLE ALWAYS TRIGGER outbox_no_truncate;

CREATE SCHEMA IF NOT EXISTS daemons;

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
