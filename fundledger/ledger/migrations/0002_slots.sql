-- Accounts of merchants over several slots: how many there are is told by the first, under its lock and its MAC.

ALTER TABLE ledger.sub_accounts ADD COLUMN slots integer NOT NULL DEFAULT 1
    CONSTRAINT sub_accounts_slots CHECK (slots BETWEEN 1 AND 256);
COMMENT ON COLUMN ledger.sub_accounts.slots IS 'of slot 0 of a merchant''s account: how many slots exist; of all others 1';

-- Where workers post to: the first so many slots of an account. A preference, read by whoever routes; what may be spent is
-- decided under locks, by what the sub-accounts themselves say.
CREATE TABLE ledger.routes (
    account_number bigint NOT NULL CONSTRAINT routes_pkey PRIMARY KEY,
    slots integer NOT NULL CONSTRAINT routes_slots CHECK (slots BETWEEN 1 AND 256),
    epoch bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who split or merged an account, when and why. Insert only.
CREATE TABLE ledger.route_events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT route_events_pkey PRIMARY KEY,
    account_number bigint NOT NULL,
    slots integer NOT NULL,
    reason text NOT NULL,
    module text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX route_events_by_account ON ledger.route_events (account_number, id);
CREATE TRIGGER route_events_append_only BEFORE UPDATE OR DELETE ON ledger.route_events
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER route_events_no_truncate BEFORE TRUNCATE ON ledger.route_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.route_events ENABLE ALWAYS TRIGGER route_events_append_only;
ALTER TABLE ledger.route_events ENABLE ALWAYS TRIGGER route_events_no_truncate;

-- What each worker sees of its hottest accounts, told to all: a second old, and worth nothing after a crash.
CREATE UNLOGGED TABLE ledger.heat (
    worker text NOT NULL CONSTRAINT heat_pkey PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    hottest json NOT NULL
);

-- How hot the accounts are that are not cold.
CREATE TABLE ledger.hot_accounts (
    account_number bigint NOT NULL CONSTRAINT hot_accounts_pkey PRIMARY KEY,
    state text NOT NULL CONSTRAINT hot_accounts_state CHECK (state IN ('warming', 'hot', 'cooling')),
    since timestamptz NOT NULL,
    utilisation real NOT NULL
);
