-- An order whose next step got an answer that no repetition changes is `stuck`, with the reason in `problem`, until a
-- request to retry takes it back to the state that it came from. A line of a bank statement has an identity.

ALTER TABLE fund.orders ADD COLUMN stuck_from text
    CONSTRAINT orders_stuck_from CHECK (stuck_from IN ('posting', 'posted', 'sent', 'unknown'));
COMMENT ON COLUMN fund.orders.stuck_from IS 'of a stuck order: the state that a retry takes it back to';
ALTER TABLE fund.orders DROP CONSTRAINT orders_state, DROP CONSTRAINT orders_refused_for_a_reason;
ALTER TABLE fund.orders
    ADD CONSTRAINT orders_state
        CHECK (state IN ('created', 'posting', 'posted', 'refused', 'sent', 'paid', 'bounced', 'unknown', 'stuck')),
    ADD CONSTRAINT orders_refused_for_a_reason CHECK ((state IN ('refused', 'stuck')) = (problem IS NOT NULL)),
    ADD CONSTRAINT orders_stuck_from_a_state CHECK ((state = 'stuck') = (stuck_from IS NOT NULL));
CREATE INDEX orders_stuck ON fund.orders (seq) WHERE state = 'stuck';

ALTER TABLE fund.channel_findings DROP CONSTRAINT channel_findings_says,
    ADD CONSTRAINT channel_findings_says CHECK (says IN ('paid', 'bounced', 'absent', 'amount', 'voucher'));
COMMENT ON COLUMN fund.channel_findings.says IS 'what the channel says; voucher: what the account service posted differs';

-- The bank's own reference of an entry, and its value date, tell two entries apart that look alike. A line that another
-- statement has already is `repeated`: nothing is booked for it.
ALTER TABLE fund.bank_statement_lines
    ADD COLUMN entry_ref text,
    ADD COLUMN value_date date,
    DROP CONSTRAINT bank_statement_lines_outcome,
    DROP CONSTRAINT bank_statement_lines_difference,
    DROP CONSTRAINT bank_statement_lines_order;
ALTER TABLE fund.bank_statement_lines
    ADD CONSTRAINT bank_statement_lines_outcome
        CHECK (outcome IN ('matched', 'awaited', 'different', 'duplicate', 'unknown', 'repeated')),
    ADD CONSTRAINT bank_statement_lines_difference CHECK (CASE
        WHEN outcome IN ('matched', 'awaited', 'repeated') THEN difference = 0
        WHEN outcome = 'different' THEN difference <> 0
        ELSE difference = amount END),
    ADD CONSTRAINT bank_statement_lines_order CHECK ((outcome IN ('unknown', 'repeated')) = (order_id IS NULL));
CREATE INDEX bank_statement_lines_by_ref ON fund.bank_statement_lines (channel, ref);
CREATE UNIQUE INDEX bank_statement_lines_entry_once ON fund.bank_statement_lines (channel, entry_ref)
    WHERE outcome <> 'repeated';
