-- The fund database: merchants, their fee rules, orders, and what became of them.
-- Amounts are BIGINT minor units, never negative; what moves where is told by an order's kind (fund/flows.py).

CREATE SCHEMA fund;

CREATE FUNCTION fund.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TABLE fund.merchants (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT merchants_seq_once UNIQUE,
    id text NOT NULL CONSTRAINT merchants_id_once PRIMARY KEY,
    name text NOT NULL,
    currency text NOT NULL,
    settlement text NOT NULL DEFAULT 'manual' CONSTRAINT merchants_settlement CHECK (settlement IN ('manual', 'daily', 'weekly', 'monthly')),
    withdrawal_limit bigint CONSTRAINT merchants_withdrawal_limit CHECK (withdrawal_limit >= 0),
    digest bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN fund.merchants.settlement IS 'when what is pending is settled by itself: weekly on Mondays, monthly on the first (UTC)';
COMMENT ON COLUMN fund.merchants.withdrawal_limit IS 'what may be withdrawn on one day (UTC) in sum; null: everything';
COMMENT ON COLUMN fund.merchants.digest IS 'of the request that made it: a repeat is told from another one';

-- What is charged, by whom it applies to: null is "any". Insert only: an order names the rule by which it was charged.
CREATE TABLE fund.fee_rules (
    version bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT fee_rules_pkey PRIMARY KEY,
    merchant text,
    product text NOT NULL CONSTRAINT fee_rules_product CHECK (product IN ('payment', 'withdrawal')),
    channel text,
    basis_points integer NOT NULL CONSTRAINT fee_rules_basis_points CHECK (basis_points BETWEEN 0 AND 10000),
    fixed bigint NOT NULL CONSTRAINT fee_rules_fixed CHECK (fixed >= 0),
    minimum bigint NOT NULL CONSTRAINT fee_rules_minimum CHECK (minimum >= 0),
    maximum bigint CONSTRAINT fee_rules_maximum CHECK (maximum >= minimum),
    tiers jsonb NOT NULL DEFAULT '[]',
    effective_at timestamptz NOT NULL,
    module text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fee_rules_by_merchant ON fund.fee_rules (merchant, product);

-- One row an order. Its id is made of its names (merchant, kind, order_no), so the primary key is what makes each count
-- once, for ever; the voucher's id is made of the order's id, so whoever posts it again can only hit the same voucher.
CREATE TABLE fund.orders (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    id uuid NOT NULL CONSTRAINT orders_id_once PRIMARY KEY,
    kind text NOT NULL,
    merchant text NOT NULL,
    order_no text NOT NULL,
    state text NOT NULL CONSTRAINT orders_state
        CHECK (state IN ('created', 'posting', 'posted', 'refused', 'sent', 'paid', 'bounced', 'unknown')),
    amount bigint NOT NULL CONSTRAINT orders_amount CHECK (amount > 0),
    fee bigint NOT NULL CONSTRAINT orders_fee CHECK (fee >= 0),
    currency text NOT NULL,
    channel text,
    channel_ref text,
    settle text CONSTRAINT orders_settle CHECK (settle IN ('now', 'later')),
    of_order uuid,
    from_pending bigint NOT NULL DEFAULT 0 CONSTRAINT orders_from_pending CHECK (from_pending BETWEEN 0 AND amount),
    to_receivable bigint NOT NULL DEFAULT 0 CONSTRAINT orders_to_receivable CHECK (to_receivable BETWEEN 0 AND amount),
    fee_waived bigint NOT NULL DEFAULT 0 CONSTRAINT orders_fee_waived CHECK (fee_waived >= 0),
    fee_version bigint,
    direction text CONSTRAINT orders_direction CHECK (direction IN ('credit', 'debit', 'more', 'less')),
    reason text,
    ticket text,
    module text NOT NULL,
    approved_by text,
    digest bytea NOT NULL,
    voucher_id uuid NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    ending text CONSTRAINT orders_ending CHECK (ending IN ('paid', 'bounced')),
    reversed_by uuid,
    problem json,
    created_at timestamptz NOT NULL,
    posted_at timestamptz,
    due_at timestamptz,
    CONSTRAINT orders_refused_for_a_reason CHECK ((state = 'refused') = (problem IS NOT NULL)),
    CONSTRAINT orders_approved_by_another CHECK (approved_by <> module)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON COLUMN fund.orders.seq IS 'the order of lists; not of time';
COMMENT ON COLUMN fund.orders.from_pending IS 'of a refund: what comes from money that was not settled yet';
COMMENT ON COLUMN fund.orders.to_receivable IS 'of a chargeback: what the merchant had not, and owes us';
COMMENT ON COLUMN fund.orders.fee_waived IS 'of a refund of unsettled money: the fee that will not be charged';
COMMENT ON COLUMN fund.orders.attempt IS 'of a chargeback: how often what the merchant had was looked up';
COMMENT ON COLUMN fund.orders.ending IS 'of a withdrawal: how it ends, written before the voucher of its end is posted';
COMMENT ON COLUMN fund.orders.due_at IS 'when somebody has to look after it; null: nobody has to';
COMMENT ON COLUMN fund.orders.module IS 'who asked for it, MODULE or MODULE/PERSON';
CREATE INDEX orders_by_merchant ON fund.orders (merchant, kind, seq);
CREATE INDEX orders_due ON fund.orders (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX orders_by_channel_ref ON fund.orders (channel, channel_ref) WHERE channel_ref IS NOT NULL;
CREATE INDEX orders_of_order ON fund.orders (of_order) WHERE of_order IS NOT NULL;

-- What became of a payment since it was posted: it is made when that is first asked, under the lock of this row. Of a
-- payment that is settled later it is made at once.
CREATE TABLE fund.payments (
    order_id uuid NOT NULL CONSTRAINT payments_pkey PRIMARY KEY,
    merchant text NOT NULL,
    seq bigint NOT NULL,
    amount bigint NOT NULL,
    fee bigint NOT NULL,
    settled bigint NOT NULL,
    fee_settled bigint NOT NULL,
    refunded bigint NOT NULL DEFAULT 0,
    refunded_unsettled bigint NOT NULL DEFAULT 0,
    fee_waived bigint NOT NULL DEFAULT 0,
    fee_returned bigint NOT NULL DEFAULT 0,
    charged_back bigint NOT NULL DEFAULT 0,
    reversed boolean NOT NULL DEFAULT false,
    CONSTRAINT payments_never_more_back_than_paid CHECK (refunded >= 0 AND charged_back >= 0 AND refunded + charged_back <= amount),
    CONSTRAINT payments_settled CHECK (settled >= 0 AND refunded_unsettled >= 0 AND settled + refunded_unsettled <= amount),
    CONSTRAINT payments_refunded CHECK (refunded_unsettled <= refunded),
    CONSTRAINT payments_fee CHECK (fee_settled >= 0 AND fee_waived >= 0 AND fee_settled + fee_waived <= fee),
    CONSTRAINT payments_fee_returned CHECK (fee_returned BETWEEN 0 AND fee_settled),
    CONSTRAINT payments_reversed CHECK (NOT reversed OR (refunded = 0 AND charged_back = 0))
) WITH (fillfactor = 70);
CREATE INDEX payments_unsettled ON fund.payments (merchant, seq) WHERE settled + refunded_unsettled < amount AND NOT reversed;

-- Which part of which payment a settlement settles. Insert only; of a settlement that was refused it means nothing.
CREATE TABLE fund.settled_payments (
    settlement uuid NOT NULL,
    payment uuid NOT NULL,
    amount bigint NOT NULL CONSTRAINT settled_payments_amount CHECK (amount > 0),
    fee bigint NOT NULL CONSTRAINT settled_payments_fee CHECK (fee >= 0),
    CONSTRAINT settled_payments_pkey PRIMARY KEY (settlement, payment)
);

-- What a merchant withdrew on a day (UTC), under the lock of this row.
CREATE TABLE fund.withdrawal_days (
    merchant text NOT NULL,
    day date NOT NULL,
    amount bigint NOT NULL CONSTRAINT withdrawal_days_amount CHECK (amount >= 0),
    CONSTRAINT withdrawal_days_pkey PRIMARY KEY (merchant, day)
);

-- Every state that an order went into after its first one: its history, and the outbox that others are told from.
-- `seq` is drawn under the lock of the order's row, so the events of one order are in order; see outbox/horizon.py for
-- when a reader may go past one. Insert only.
CREATE TABLE fund.events (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT events_pkey PRIMARY KEY,
    order_id uuid NOT NULL,
    merchant text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    detail json,
    at timestamptz NOT NULL
);
CREATE INDEX events_of_order ON fund.events (order_id);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['fee_rules', 'settled_payments', 'events'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;
CREATE TRIGGER orders_no_delete BEFORE DELETE ON fund.orders FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER orders_no_truncate BEFORE TRUNCATE ON fund.orders FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_no_delete;
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_no_truncate;
