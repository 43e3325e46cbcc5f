-- Split payments with their refunds and chargebacks, tax on fees, and invoices of channels.

-- The fee of an order includes its tax. `parts` are the terms of a split order, under the MAC of the order. The rows of
-- fund.split_parts repeat them by merchant, and have what came back of each part.
ALTER TABLE fund.orders
    ADD COLUMN tax bigint NOT NULL DEFAULT 0,
    ADD COLUMN parts json,
    ADD COLUMN period text,
    ADD CONSTRAINT orders_tax CHECK (tax BETWEEN 0 AND fee),
    ADD CONSTRAINT orders_parts CHECK (CASE WHEN parts IS NULL THEN kind NOT IN ('split_payment', 'split_refund', 'split_chargeback')
        ELSE kind IN ('split_payment', 'split_refund', 'split_chargeback', 'reversal') END),
    DROP CONSTRAINT orders_against,
    ADD CONSTRAINT orders_against CHECK (against IN ('over', 'short', 'merchant', 'income', 'bank', 'loss', 'channel', 'payable', 'tax')),
    ADD CONSTRAINT orders_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$');
COMMENT ON COLUMN fund.orders.tax IS 'the part of the fee that is tax';
COMMENT ON COLUMN fund.orders.parts IS 'of a split order, and of the reversal of one: an array with the part of each merchant';
COMMENT ON COLUMN fund.orders.period IS 'of an invoice of a channel, and of its payments: the month, YYYY-MM';
COMMENT ON COLUMN fund.orders.channel_ref IS 'the reference of the channel; of an invoice of a channel, the number of the invoice';

-- Whether a merchant has a part in these terms. A text that has no parts, as after an edit, is no part of any merchant.
CREATE FUNCTION fund.has_part(parts json, merchant text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    parts IS NOT NULL AND EXISTS (
        SELECT FROM json_array_elements(CASE json_typeof(parts) WHEN 'array' THEN parts END) AS e (part) WHERE e.part ->> 'merchant' = merchant
    );

CREATE TABLE fund.split_parts (
    order_id uuid NOT NULL,
    merchant text NOT NULL,
    kind text NOT NULL,
    seq bigint NOT NULL,
    amount bigint NOT NULL,
    fee bigint NOT NULL,
    tax bigint NOT NULL,
    set_off bigint NOT NULL DEFAULT 0,
    to_receivable bigint NOT NULL DEFAULT 0,
    end_set_off bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    fee_returned bigint NOT NULL DEFAULT 0,
    tax_returned bigint NOT NULL DEFAULT 0,
    charged_back bigint NOT NULL DEFAULT 0,
    reversed boolean NOT NULL DEFAULT false,
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT split_parts_pkey PRIMARY KEY (order_id, merchant),
    CONSTRAINT split_parts_amount CHECK (amount > 0),
    CONSTRAINT split_parts_fee CHECK (fee BETWEEN 0 AND amount),
    CONSTRAINT split_parts_tax CHECK (tax BETWEEN 0 AND fee),
    CONSTRAINT split_parts_set_off CHECK (set_off BETWEEN 0 AND amount - fee),
    CONSTRAINT split_parts_to_receivable CHECK (to_receivable BETWEEN 0 AND amount),
    CONSTRAINT split_parts_end_set_off CHECK (end_set_off BETWEEN 0 AND amount - fee),
    CONSTRAINT split_parts_never_more_back_than_paid CHECK (refunded >= 0 AND charged_back >= 0 AND refunded + charged_back <= amount),
    CONSTRAINT split_parts_fee_returned CHECK (fee_returned BETWEEN 0 AND least(fee, refunded)),
    CONSTRAINT split_parts_tax_returned CHECK (tax_returned BETWEEN 0 AND least(tax, fee_returned)),
    CONSTRAINT split_parts_reversed CHECK (NOT reversed OR (refunded = 0 AND charged_back = 0))
) WITH (fillfactor = 70);
COMMENT ON TABLE fund.split_parts IS 'the parts of split orders by merchant; of a split payment, also what came back of each part';
COMMENT ON COLUMN fund.split_parts.kind IS 'the kind of the order';
COMMENT ON COLUMN fund.split_parts.seq IS 'the seq of the order';
CREATE INDEX split_parts_by_merchant ON fund.split_parts (merchant, kind, seq);

CREATE FUNCTION fund.refuse_change_of_part() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected fund.split_parts%ROWTYPE;
BEGIN
    expected := OLD;
    expected.set_off := NEW.set_off; expected.to_receivable := NEW.to_receivable; expected.end_set_off := NEW.end_set_off;
    expected.refunded := NEW.refunded;
    expected.fee_returned := NEW.fee_returned; expected.tax_returned := NEW.tax_returned; expected.charged_back := NEW.charged_back;
    expected.reversed := NEW.reversed; expected.mac_key := NEW.mac_key; expected.mac := NEW.mac;
    IF NEW *= expected THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'part of % in order %: an update of its terms is refused', OLD.merchant, OLD.order_id
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER split_parts_terms BEFORE UPDATE ON fund.split_parts FOR EACH ROW EXECUTE FUNCTION fund.refuse_change_of_part();
ALTER TABLE fund.split_parts ENABLE ALWAYS TRIGGER split_parts_terms;
CREATE TRIGGER split_parts_no_delete BEFORE DELETE ON fund.split_parts FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER split_parts_no_truncate BEFORE TRUNCATE ON fund.split_parts FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.split_parts ENABLE ALWAYS TRIGGER split_parts_no_delete;
ALTER TABLE fund.split_parts ENABLE ALWAYS TRIGGER split_parts_no_truncate;

-- Tax on fees. A share of the tax belongs to a share of the fee, so the tax of a waived fee needs no column.
ALTER TABLE fund.payments
    ADD COLUMN tax bigint NOT NULL DEFAULT 0,
    ADD COLUMN tax_settled bigint NOT NULL DEFAULT 0,
    ADD COLUMN tax_returned bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT payments_tax CHECK (tax BETWEEN 0 AND fee AND tax_settled BETWEEN 0 AND least(tax, fee_settled)
        AND tax_returned BETWEEN 0 AND least(tax_settled, fee_returned));
COMMENT ON COLUMN fund.payments.tax IS 'the part of the fee that is tax';
ALTER TABLE fund.settled_payments
    ADD COLUMN tax bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT settled_payments_tax CHECK (tax BETWEEN 0 AND fee);
ALTER TABLE fund.day_sums ADD COLUMN tax numeric NOT NULL DEFAULT 0;

-- A rule for all merchants that names amounts needs a currency, because 1.00 CNY is not 100 JPY. Rules that exist are not checked.
ALTER TABLE fund.fee_rules
    ADD COLUMN currency text,
    ADD COLUMN tax_basis_points integer NOT NULL DEFAULT 0,
    ADD COLUMN tax_mode text NOT NULL DEFAULT 'included',
    ADD COLUMN fee_return text NOT NULL DEFAULT 'proportional',
    ADD CONSTRAINT fee_rules_tax CHECK (tax_basis_points BETWEEN 0 AND 10000),
    ADD CONSTRAINT fee_rules_tax_mode CHECK (tax_mode IN ('included', 'added')),
    ADD CONSTRAINT fee_rules_return CHECK (fee_return IN ('proportional', 'none'));
-- A constraint would also apply when a rule that exists gets its first MAC.
CREATE FUNCTION fund.refuse_amounts_without_currency() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a fee rule for all merchants that names amounts needs a currency'
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER fee_rules_currency AFTER INSERT ON fund.fee_rules FOR EACH ROW
    WHEN (NEW.merchant IS NULL AND NEW.currency IS NULL
          AND (NEW.fixed <> 0 OR NEW.minimum <> 0 OR NEW.maximum IS NOT NULL OR NEW.tiers <> '[]'))
    EXECUTE FUNCTION fund.refuse_amounts_without_currency();
ALTER TABLE fund.fee_rules ENABLE ALWAYS TRIGGER fee_rules_currency;
COMMENT ON COLUMN fund.fee_rules.currency IS 'the only currency to which the rule applies; null: any currency, or that of the merchant';
COMMENT ON COLUMN fund.fee_rules.tax_mode IS 'whether the tax is included in the fee, or added to it';
COMMENT ON COLUMN fund.fee_rules.fee_return IS 'whether refunds return the fee in proportion, or not at all';

-- Refunds of split payments are sent through channels, as other refunds are.
ALTER TABLE fund.orders DROP CONSTRAINT orders_end_of_refund,
    ADD CONSTRAINT orders_end_of_refund CHECK (kind NOT IN ('refund', 'split_refund') OR voucher_format = 3
        OR (ending IS NULL AND state NOT IN ('sent', 'unknown', 'paid', 'bounced') AND coalesce(stuck_from, 'posting') = 'posting'));
DROP INDEX fund.orders_to_refund;
CREATE INDEX orders_to_refund ON fund.orders (channel, seq) WHERE kind IN ('refund', 'split_refund') AND state = 'posted' AND voucher_format = 3;
ALTER TABLE fund.payouts DROP CONSTRAINT payouts_kind,
    ADD CONSTRAINT payouts_kind CHECK (kind IN ('withdrawal', 'refund', 'split_refund'));

-- Split orders that may still change debts are few. The parts of a merchant are many.
CREATE INDEX orders_split_open ON fund.orders (id)
    WHERE parts IS NOT NULL AND (state IN ('posting', 'parked', 'sent', 'unknown', 'stuck') OR (state = 'posted' AND ending IS NOT NULL));

-- Shared definitions

-- The results for earlier kinds stay, so the index orders_receipt_once stays valid. A payment is decided first, at no further cost.
CREATE OR REPLACE FUNCTION fund.receipt(kind text, state text, void boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN void OR state = 'refused' THEN NULL
         WHEN kind = 'payment' THEN 'in'
         WHEN state IN ('rejected', 'expired') THEN NULL
         WHEN kind IN ('payout_return', 'own_transfer', 'own_funds', 'top_up', 'dispute_won', 'split_payment') THEN 'in'
         WHEN kind IN ('withdrawal', 'chargeback', 'refund', 'channel_cost', 'fee_sweep', 'payable_payment', 'dispute_fee', 'dispute',
                       'split_refund', 'split_chargeback') THEN 'out'
         WHEN kind = 'channel_invoice' THEN 'invoice' END;

-- A copy of the table in fund/model/transitions.py, as in migration 0019.
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    is_fact boolean := kind IN ('payment', 'chargeback', 'payout_return', 'top_up', 'dispute_won', 'dispute_fee', 'split_payment',
                                'split_chargeback');
    is_sent boolean := kind IN ('withdrawal', 'refund', 'split_refund');
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN after IN ('posting', 'rejected', 'expired') AND kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal',
            'own_transfer', 'own_funds', 'fee_sweep', 'payable_payment', 'suspense_clearing', 'parked_clearing')
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck') OR (after = 'parked' AND is_fact)
        WHEN 'parked' THEN after IN ('posting', 'cleared') AND is_fact
        WHEN 'cleared' THEN after = 'parked' AND is_fact
        WHEN 'posted' THEN CASE kind
            WHEN 'own_transfer' THEN after IN ('paid', 'bounced', 'stuck')
            WHEN 'dispute' THEN after IN ('won', 'lost', 'stuck')
            ELSE is_sent AND after IN ('sent', 'paid', 'bounced', 'stuck') END
        WHEN 'sent' THEN is_sent AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN is_sent AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (is_sent AND after IN ('posted', 'sent', 'unknown'))
            OR (kind IN ('own_transfer', 'dispute') AND after = 'posted')
        ELSE false
    END;
END $$;
