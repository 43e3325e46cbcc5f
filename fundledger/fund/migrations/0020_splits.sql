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
    ADD CONSTRAINT orders_period CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$');
COMMENT ON COLUMN fund.orders.tax IS 'the part of the fee that is tax';
COMMENT ON COLUMN fund.orders.parts IS 'of a split order, and of the reversal of a split payment: an array with the part of each merchant';
COMMENT ON COLUMN fund.orders.period IS 'of an invoice of a channel, and of its payment: the month, YYYY-MM';
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
    CONSTRAINT split_parts_never_more_back_than_paid CHECK (refunded >= 0 AND charged_back >= 0 AND refunded + charged_back <= amount),
    CONSTRAINT split_parts_fee_returned CHECK (fee_returned BETWEEN 0 AND least(fee, refunded)),
    CONSTRAINT split_parts_tax_returned CHECK (tax_returned BETWEEN 0 AND least(tax, fee_returned)),
    CONSTRAINT split_parts_reversed CHECK (NOT reversed OR (refunded = 0 AND charged_back = 0))
) WITH (fillfactor = 70);
COMMENT ON TABLE fund.split_parts IS 'the parts of split orders by merchant; of a split payment, also what came back of each part';
COMMENT ON COLUMN fund.split_parts.kind IS 'the kind of the order';
COMMENT ON COLUMN fund.split_parts.seq IS 'the seq of the order';
CREATE INDEX split_parts_by_merchant ON fund.split_parts (merchant, kind, seq);
CREATE INDEX split_parts_of_debts ON fund.split_parts (merchant) WHERE to_receivable > 0 OR set_off > 0 OR kind = 'split_chargeback';

CREATE FUNCTION fund.refuse_change_of_part() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected fund.split_parts%ROWTYPE;
BEGIN
    expected := OLD;
    expected.set_off := NEW.set_off; expected.to_receivable := NEW.to_receivable; expected.refunded := NEW.refunded;
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
    ADD CONSTRAINT fee_rules_return CHECK (fee_return IN ('proportional', 'none')),
    ADD CONSTRAINT fee_rules_currency CHECK (merchant IS NOT NULL OR currency IS NOT NULL
        OR (fixed = 0 AND minimum = 0 AND maximum IS NULL AND tiers = '[]')) NOT VALID;
COMMENT ON COLUMN fund.fee_rules.currency IS 'the only currency to which the rule applies; null: any currency, or that of the merchant';
COMMENT ON COLUMN fund.fee_rules.tax_mode IS 'whether the tax is included in the fee, or added to it';
COMMENT ON COLUMN fund.fee_rules.fee_return IS 'whether refunds return the fee in proportion, or not at all';

-- Shared definitions

CREATE OR REPLACE FUNCTION fund.receipt(kind text, state text, void boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN void OR state IN ('refused', 'rejected', 'expired') THEN NULL
         WHEN kind IN ('payment', 'split_payment') THEN 'in'
         WHEN kind IN ('withdrawal', 'chargeback', 'refund', 'channel_cost', 'split_refund', 'split_chargeback', 'channel_invoice_payment') THEN 'out'
         WHEN kind = 'channel_invoice' THEN 'invoice' END;

-- A copy of the table in fund/model/transitions.py, as in migration 0017.
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal', 'channel_invoice_payment') AND after IN ('posting', 'rejected', 'expired')
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck') OR (after = 'parked' AND kind IN ('payment', 'chargeback', 'split_payment', 'split_chargeback'))
        WHEN 'parked' THEN after = 'posting' AND kind IN ('payment', 'chargeback', 'split_payment', 'split_chargeback')
        WHEN 'posted' THEN kind = 'withdrawal' AND after IN ('sent', 'paid', 'bounced', 'stuck')
        WHEN 'sent' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind = 'withdrawal' AND after IN ('posted', 'sent', 'unknown'))
        ELSE false
    END;
END $$;

DROP TRIGGER orders_first_state ON fund.orders;
CREATE TRIGGER orders_first_state AFTER INSERT ON fund.orders FOR EACH ROW
    WHEN (NEW.state IS DISTINCT FROM CASE
        WHEN NEW.kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal', 'channel_invoice_payment') THEN 'created' ELSE 'posting' END)
    EXECUTE FUNCTION fund.refuse_transition();
ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_first_state;
