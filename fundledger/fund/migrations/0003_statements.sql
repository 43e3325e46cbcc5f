-- Payouts through channels, and bank statements. What a channel was asked for is kept apart from the order: an order may
-- be ended by a front end while its channel still has to say what became of it.

CREATE TABLE fund.payouts (
    order_id uuid NOT NULL CONSTRAINT payouts_pkey PRIMARY KEY,
    channel text NOT NULL,
    amount bigint NOT NULL CONSTRAINT payouts_amount CHECK (amount > 0),
    currency text NOT NULL,
    sent_at timestamptz NOT NULL,
    calls integer NOT NULL DEFAULT 1,
    asked integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    outcome text CONSTRAINT payouts_outcome CHECK (outcome IN ('paid', 'bounced', 'absent')),
    channel_ref text,
    CONSTRAINT payouts_due_until_known CHECK ((due_at IS NULL) = (outcome IS NOT NULL))
) WITH (fillfactor = 80);
COMMENT ON COLUMN fund.payouts.calls IS 'how often money was asked to be sent, written before each call';
COMMENT ON COLUMN fund.payouts.asked IS 'how often the channel was asked what became of it';
COMMENT ON COLUMN fund.payouts.due_at IS 'when it is asked again; null: what the channel says is final';
CREATE INDEX payouts_due ON fund.payouts (channel, due_at) WHERE outcome IS NULL;
CREATE INDEX orders_to_pay_out ON fund.orders (channel, seq) WHERE kind = 'withdrawal' AND state = 'posted';

-- The channel says otherwise than what stands: somebody has to look at it. Nothing is changed by it. Insert only.
CREATE TABLE fund.channel_findings (
    order_id uuid NOT NULL,
    channel text NOT NULL,
    stands text NOT NULL,
    says text NOT NULL CONSTRAINT channel_findings_says CHECK (says IN ('paid', 'bounced', 'absent', 'amount')),
    detail json NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT channel_findings_once PRIMARY KEY (order_id, says)
);

-- A statement is written with what came of it, in one transaction, before any difference is booked. Insert only.
CREATE TABLE fund.bank_statements (
    channel text NOT NULL,
    statement_no text NOT NULL,
    currency text NOT NULL,
    digest bytea NOT NULL,
    module text NOT NULL,
    in_transit json NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT bank_statements_once PRIMARY KEY (channel, statement_no)
);
COMMENT ON COLUMN fund.bank_statements.in_transit IS 'what the books had and no statement, when it was imported';

CREATE TABLE fund.bank_statement_lines (
    channel text NOT NULL,
    statement_no text NOT NULL,
    line_no integer NOT NULL,
    ref text NOT NULL,
    amount bigint NOT NULL CONSTRAINT bank_statement_lines_amount CHECK (amount <> 0),
    outcome text NOT NULL CONSTRAINT bank_statement_lines_outcome
        CHECK (outcome IN ('matched', 'awaited', 'different', 'duplicate', 'unknown')),
    order_id uuid,
    difference bigint NOT NULL,
    CONSTRAINT bank_statement_lines_pkey PRIMARY KEY (channel, statement_no, line_no),
    CONSTRAINT bank_statement_lines_difference CHECK (CASE
        WHEN outcome IN ('matched', 'awaited') THEN difference = 0
        WHEN outcome = 'different' THEN difference <> 0
        ELSE difference = amount END),
    CONSTRAINT bank_statement_lines_order CHECK ((outcome = 'unknown') = (order_id IS NULL))
);
CREATE INDEX bank_statement_lines_awaited ON fund.bank_statement_lines (order_id) WHERE outcome = 'awaited';
-- What moved once at the bank explains one order, whatever statements say it.
CREATE UNIQUE INDEX bank_statement_lines_order_once ON fund.bank_statement_lines (order_id)
    WHERE outcome IN ('matched', 'awaited', 'different');

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['channel_findings', 'bank_statements', 'bank_statement_lines'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON fund.%I FOR EACH ROW EXECUTE FUNCTION fund.refuse_change()', name || '_append_only', name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON fund.%I FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change()', name || '_no_truncate', name);
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_append_only');
        EXECUTE format('ALTER TABLE fund.%I ENABLE ALWAYS TRIGGER %I', name, name || '_no_truncate');
    END LOOP;
END $$;
CREATE TRIGGER payouts_no_delete BEFORE DELETE ON fund.payouts FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER payouts_no_truncate BEFORE TRUNCATE ON fund.payouts FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.payouts ENABLE ALWAYS TRIGGER payouts_no_delete;
ALTER TABLE fund.payouts ENABLE ALWAYS TRIGGER payouts_no_truncate;
