-- One calendar with the account service, ends in the sums of days, settlement dates, the life of merchants, and withdrawals of all.

-- From a day on, days end when the clock of a time zone shows the cut. The rows are those of the account service. Each day belongs to
-- the row with the latest `from_day` that is not after it.
CREATE TABLE fund.calendars (
    -- Dates and times are bounded in this file, so that no process fails to read a row.
    from_day date NOT NULL CONSTRAINT calendars_pkey PRIMARY KEY CONSTRAINT calendars_from_day CHECK (from_day BETWEEN '0001-01-01' AND '9999-11-30'),
    timezone text NOT NULL,
    cut text NOT NULL CONSTRAINT calendars_cut CHECK (cut ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'),
    recorded_at timestamptz NOT NULL CONSTRAINT calendars_recorded_at CHECK (recorded_at BETWEEN '1970-01-01Z' AND '9999-12-01Z'),
    mac_key smallint NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON COLUMN fund.calendars.cut IS 'the local time of day at which a day ends, HH:MM';
COMMENT ON COLUMN fund.calendars.from_day IS 'the first day that ends by this row; its beginning is later than `recorded_at`, except in the first row';

-- Orders whose end is posted. An end belongs to the day of its voucher, or to the first open day if that day was
-- closed when the end was recorded.
CREATE TABLE fund.ends (
    order_id uuid NOT NULL,
    ending text NOT NULL CONSTRAINT ends_ending CHECK (ending IN ('paid', 'bounced', 'won', 'lost')),
    day date NOT NULL CONSTRAINT ends_day CHECK (day BETWEEN '1970-01-01' AND '9999-11-30'),
    at timestamptz NOT NULL CONSTRAINT ends_at CHECK (at BETWEEN '1970-01-01Z' AND '9999-12-01Z'),
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT ends_pkey PRIMARY KEY (order_id, ending)
);
COMMENT ON COLUMN fund.ends.day IS 'the day in whose sums the end counts';
COMMENT ON COLUMN fund.ends.at IS 'the posting time of the voucher of the end';
CREATE INDEX ends_by_day ON fund.ends (day);

-- Days whose sums are being computed, or are computed. From then on, an end counts in a later day.
CREATE TABLE fund.day_closings (
    day date NOT NULL CONSTRAINT day_closings_pkey PRIMARY KEY CONSTRAINT day_closings_day CHECK (day BETWEEN '1970-01-01' AND '9999-11-30'),
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE fund.day_ends
    ADD COLUMN begins_at timestamptz,
    ADD COLUMN ends_at timestamptz,
    ADD COLUMN ends bigint,
    ADD CONSTRAINT day_ends_day CHECK (day BETWEEN '1970-01-01' AND '9999-11-30'),
    ADD CONSTRAINT day_ends_instants CHECK ((begins_at IS NULL) = (ends_at IS NULL) AND (begins_at IS NULL) = (ends IS NULL) AND begins_at <= ends_at);
COMMENT ON TABLE fund.day_ends IS 'days that are closed: their sums are written, and never change';
COMMENT ON COLUMN fund.day_ends.begins_at IS 'when the day began; null: the day is a day in UTC, closed before this column existed';
COMMENT ON COLUMN fund.day_ends.ends IS 'the number of orders that ended on the day; null: ends were not summed';
ALTER TABLE fund.day_sums
    ADD COLUMN ended bigint NOT NULL DEFAULT 0,
    ADD COLUMN ended_amount numeric NOT NULL DEFAULT 0,
    ADD COLUMN ended_fee numeric NOT NULL DEFAULT 0;
COMMENT ON COLUMN fund.day_sums.orders IS 'the number of orders that were posted on the day';
COMMENT ON COLUMN fund.day_sums.ended IS 'the number of orders that ended in this state on the day, also of orders that were posted on an earlier day';

-- Settlement dates, and withdrawals of all.
ALTER TABLE fund.orders
    ADD COLUMN settle_on date CONSTRAINT orders_settle_on 
        CHECK (settle_on IS NULL OR (kind = 'payment' AND settle = 'later' AND settle_on BETWEEN '1970-01-01' AND '9999-11-30')),
    ADD COLUMN takes_all boolean NOT NULL DEFAULT false CONSTRAINT orders_takes_all CHECK (NOT takes_all OR kind = 'withdrawal');
COMMENT ON COLUMN fund.orders.settle_on IS 'of a payment that is settled later: the day on which it is due, by the calendar of its merchant when it was created';
COMMENT ON COLUMN fund.orders.takes_all IS 'of a withdrawal: its amount was decided from the available balance';
ALTER TABLE fund.payments ADD COLUMN settle_on date CONSTRAINT payments_settle_on CHECK (settle_on BETWEEN '1970-01-01' AND '9999-11-30');
COMMENT ON COLUMN fund.payments.settle_on IS 'a copy of the column of the order';
CREATE INDEX payments_due ON fund.payments (merchant, settle_on)
    WHERE settled + refunded_unsettled + charged_back_unsettled < amount AND NOT reversed;

-- Days of a region that differ from the rule of weekends.
CREATE SEQUENCE fund.holidays_version;
CREATE TABLE fund.holidays (
    region text NOT NULL CONSTRAINT holidays_region CHECK (region ~ '^[A-Za-z0-9_.-]{1,32}$'),
    day date NOT NULL CONSTRAINT holidays_day CHECK (day BETWEEN '1970-01-01' AND '9999-11-30'),
    working boolean NOT NULL,
    name text,
    change uuid NOT NULL,
    version bigint NOT NULL DEFAULT nextval('fund.holidays_version'),
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT holidays_pkey PRIMARY KEY (region, day)
);
ALTER SEQUENCE fund.holidays_version OWNED BY fund.holidays.version;
COMMENT ON COLUMN fund.holidays.working IS 'false: no working day; true: a working day, also on a weekend';
COMMENT ON COLUMN fund.holidays.change IS 'the change in fund.changes that wrote the row';
CREATE INDEX holidays_by_version ON fund.holidays (version);

-- The life of merchants.
ALTER TABLE fund.merchants
    ADD COLUMN state text NOT NULL DEFAULT 'open' CONSTRAINT merchants_state CHECK (state IN ('open', 'suspended', 'closing', 'closed')),
    ADD COLUMN settlement_days smallint CONSTRAINT merchants_settlement_days CHECK (settlement_days BETWEEN 0 AND 60),
    ADD COLUMN settlement_cut text CONSTRAINT merchants_settlement_cut CHECK (settlement_cut ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'),
    ADD COLUMN settlement_region text CONSTRAINT merchants_settlement_region CHECK (settlement_region ~ '^[A-Za-z0-9_.-]{1,32}$'),
    ADD COLUMN final_channel text,
    ADD COLUMN version integer NOT NULL DEFAULT 0 CONSTRAINT merchants_version CHECK (version >= 0),
    ADD CONSTRAINT merchants_final CHECK (final_channel IS NULL OR state IN ('closing', 'closed'));
COMMENT ON COLUMN fund.merchants.state IS 'suspended: no refunds, settlements, withdrawals, transfers and payouts of withdrawals; closing: its money is settled and withdrawn; closed: its accounts are closed';
COMMENT ON COLUMN fund.merchants.settlement IS 'when pending payments are settled automatically: weekly on Mondays, monthly on the first';
COMMENT ON COLUMN fund.merchants.withdrawal_limit IS 'the most that can be withdrawn on a day; null: no limit';
COMMENT ON COLUMN fund.merchants.settlement_days IS 'the working days between a payment and its settlement; null: the next day of the calendar';
COMMENT ON COLUMN fund.merchants.settlement_cut IS 'the local time of day at which a day of payments ends, HH:MM; null: the cut of the calendar';
COMMENT ON COLUMN fund.merchants.settlement_region IS 'whose holidays apply; null: those of the currency';
COMMENT ON COLUMN fund.merchants.final_channel IS 'of a merchant that closes: the channel of its final withdrawal';
COMMENT ON COLUMN fund.merchants.version IS 'the number of its rows in fund.merchant_events';
CREATE INDEX merchants_closing ON fund.merchants (id) WHERE state = 'closing';
CREATE FUNCTION fund.refuse_change_of_merchant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version >= OLD.version AND (NEW.state = OLD.state OR CASE OLD.state
        WHEN 'open' THEN NEW.state IN ('suspended', 'closing')
        WHEN 'suspended' THEN NEW.state = 'open'
        WHEN 'closing' THEN NEW.state IN ('open', 'closed')
        ELSE false
    END) THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'merchant %: % to % is refused', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER merchants_forward BEFORE UPDATE ON fund.merchants FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_of_merchant();
ALTER TABLE fund.merchants ENABLE ALWAYS TRIGGER merchants_forward;

-- The history of merchants. A merchant that is older than this table has no row of its creation.
CREATE TABLE fund.merchant_events (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT merchant_events_seq_once UNIQUE,
    merchant text NOT NULL,
    version integer NOT NULL CONSTRAINT merchant_events_version CHECK (version > 0),
    what text NOT NULL CONSTRAINT merchant_events_what
        CHECK (what IN ('created', 'changed', 'fee_rule', 'suspended', 'resumed', 'closing', 'closed')),
    body text NOT NULL,
    by text NOT NULL,
    approved_by text,
    why text,
    change uuid,
    at timestamptz NOT NULL CONSTRAINT merchant_events_at CHECK (at BETWEEN '1970-01-01Z' AND '9999-12-01Z'),
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT merchant_events_pkey PRIMARY KEY (merchant, version),
    CONSTRAINT merchant_events_approved CHECK ((approved_by IS NULL) = (change IS NULL))
);
COMMENT ON COLUMN fund.merchant_events.body IS 'the changed members, as JSON: the value before and after the event';
COMMENT ON COLUMN fund.merchant_events.change IS 'the change in fund.changes that was applied; null: one identity was sufficient';

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['calendars', 'ends', 'day_closings', 'merchant_events'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
    FOREACH name IN ARRAY ARRAY['holidays', 'merchants'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_no_delete', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_delete');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;
