-- Further kinds of orders: the platform's own money, explained suspense, disputes, and money of merchants that no payment moves.

ALTER TABLE fund.orders
    ADD COLUMN against text,
    ADD COLUMN counterparty text,
    ADD COLUMN counter_ref text,
    ADD COLUMN counter_set_off bigint NOT NULL DEFAULT 0,
    ADD COLUMN of_kind text,
    ADD CONSTRAINT orders_against CHECK (against IN ('over', 'short', 'merchant', 'income', 'bank', 'loss', 'channel', 'payable')),
    ADD CONSTRAINT orders_counterparty CHECK ((counter_set_off = 0 AND counter_ref IS NULL)
        OR (counterparty IS NOT NULL AND counter_set_off BETWEEN 0 AND amount));
COMMENT ON COLUMN fund.orders.against IS 'the account that the request names: a suspense account, or what explains an amount in suspense; null: the account of the kind''s flow';
COMMENT ON COLUMN fund.orders.counterparty IS 'the channel that own money leaves; of a transfer: the merchant that receives it';
COMMENT ON COLUMN fund.orders.counter_ref IS 'the reference of own money at the channel that it leaves';
COMMENT ON COLUMN fund.orders.counter_set_off IS 'of a transfer: the part that repays the debt of the merchant that receives it';
COMMENT ON COLUMN fund.orders.of_kind IS 'the kind of the order that this order refers to, if it may be one of several kinds; null also in reversals of earlier versions';
COMMENT ON COLUMN fund.orders.from_pending IS 'of a refund, chargeback or dispute: the part that is taken from the pending amount of the payment; of a won dispute: the part of the amount that was taken from there';
COMMENT ON COLUMN fund.orders.to_receivable IS 'of a chargeback, a dispute or its fee: the part that the merchant owes; of a reversal: the set-off that it undoes';
COMMENT ON COLUMN fund.orders.reversed_by IS 'the order that reverses this order, or clears it if it is parked';

-- The reference of own money at the channel that it leaves counts once, as in the index orders_receipt_once.
CREATE UNIQUE INDEX orders_counter_ref_once ON fund.orders (counterparty, counter_ref)
    WHERE counter_ref IS NOT NULL AND NOT receipt_void AND state NOT IN ('refused', 'rejected', 'expired');
CREATE INDEX orders_without_end ON fund.orders (kind, created_at) WHERE state = 'posted' AND kind IN ('own_transfer', 'dispute');
CREATE INDEX orders_of_counterparties ON fund.orders (counterparty) WHERE counter_set_off > 0;

ALTER TABLE fund.fee_rules DROP CONSTRAINT fee_rules_product,
    ADD CONSTRAINT fee_rules_product CHECK (product IN ('payment', 'withdrawal', 'top_up'));

-- Shared definitions

ALTER TABLE fund.orders DROP CONSTRAINT orders_state, DROP CONSTRAINT orders_direction, DROP CONSTRAINT orders_ending;
ALTER TABLE fund.orders
    ADD CONSTRAINT orders_state CHECK (state IN ('created', 'posting', 'posted', 'refused', 'sent', 'paid', 'bounced', 'unknown', 'stuck',
                                                 'parked', 'rejected', 'expired', 'cleared', 'won', 'lost')),
    ADD CONSTRAINT orders_direction CHECK (direction IN ('credit', 'debit', 'more', 'less', 'in', 'out')),
    ADD CONSTRAINT orders_ending CHECK (ending IN ('paid', 'bounced', 'won', 'lost'));

DROP INDEX fund.orders_of_debts;
CREATE INDEX orders_of_debts ON fund.orders (merchant)
    WHERE to_receivable > 0 OR set_off > 0 OR end_set_off > 0
        OR kind IN ('chargeback', 'recovery', 'write_off', 'dispute', 'dispute_fee');

-- The results for earlier kinds stay, so the index orders_receipt_once stays valid. A payment is decided first, at no further cost.
CREATE OR REPLACE FUNCTION fund.receipt(kind text, state text, void boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN void OR state = 'refused' THEN NULL
         WHEN kind = 'payment' THEN 'in'
         WHEN state IN ('rejected', 'expired') THEN NULL
         WHEN kind IN ('payout_return', 'own_transfer', 'own_funds', 'top_up', 'dispute_won') THEN 'in'
         WHEN kind IN ('withdrawal', 'chargeback', 'refund', 'channel_cost', 'fee_sweep', 'payable_payment', 'dispute_fee', 'dispute')
         THEN 'out' END;

-- A copy of the table in fund/model/transitions.py, as in migration 0018.
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN after IN ('posting', 'rejected', 'expired') AND kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal',
            'own_transfer', 'own_funds', 'fee_sweep', 'payable_payment', 'suspense_clearing', 'parked_clearing')
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck')
            OR (after = 'parked' AND kind IN ('payment', 'chargeback', 'payout_return', 'top_up', 'dispute_won', 'dispute_fee'))
        WHEN 'parked' THEN after IN ('posting', 'cleared')
            AND kind IN ('payment', 'chargeback', 'payout_return', 'top_up', 'dispute_won', 'dispute_fee')
        WHEN 'cleared' THEN after = 'parked' AND kind IN ('payment', 'chargeback', 'payout_return', 'top_up', 'dispute_won', 'dispute_fee')
        WHEN 'posted' THEN CASE kind
            WHEN 'withdrawal' THEN after IN ('sent', 'paid', 'bounced', 'stuck')
            WHEN 'refund' THEN after IN ('sent', 'paid', 'bounced', 'stuck')
            WHEN 'own_transfer' THEN after IN ('paid', 'bounced', 'stuck')
            WHEN 'dispute' THEN after IN ('won', 'lost', 'stuck')
            ELSE false END
        WHEN 'sent' THEN kind IN ('withdrawal', 'refund') AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind IN ('withdrawal', 'refund') AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind IN ('withdrawal', 'refund') AND after IN ('posted', 'sent', 'unknown'))
            OR (kind IN ('own_transfer', 'dispute') AND after = 'posted')
        ELSE false
    END;
END $$;

DROP TRIGGER orders_first_state ON fund.orders;
CREATE TRIGGER orders_first_state AFTER INSERT ON fund.orders FOR EACH ROW
    WHEN (NEW.state IS DISTINCT FROM CASE
        WHEN NEW.kind = 'payment' THEN 'posting'
        WHEN NEW.kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal', 'own_transfer', 'own_funds', 'fee_sweep',
                          'payable_payment', 'suspense_clearing', 'parked_clearing') THEN 'created'
        ELSE 'posting' END)
    EXECUTE FUNCTION fund.refuse_transition();
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_first_state;
