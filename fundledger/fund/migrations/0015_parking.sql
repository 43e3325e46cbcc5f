-- A payment and a chargeback have happened at the bank, so the ledger must take them. If the merchant's accounts do not, the
-- order is `parked`: its voucher is posted against `suspense:parked`. It is released when the accounts are open again.

ALTER TABLE fund.orders
    ADD COLUMN parking text CONSTRAINT orders_parking CHECK (parking IN ('park', 'release')),
    ADD COLUMN parked_voucher_id uuid,
    ADD CONSTRAINT orders_parked_voucher CHECK (parked_voucher_id IS NULL OR parking IS NOT NULL),
    ADD CONSTRAINT orders_parked CHECK (state <> 'parked' OR parked_voucher_id IS NOT NULL);
COMMENT ON COLUMN fund.orders.parking IS 'what voucher_id is: `park` posts to suspense:parked, `release` from there to the merchant; null: the voucher of the order''s flow';
COMMENT ON COLUMN fund.orders.parked_voucher_id IS 'the voucher that parked the order';
ALTER TABLE fund.orders DROP CONSTRAINT orders_state, ADD CONSTRAINT orders_state
    CHECK (state IN ('created', 'posting', 'posted', 'refused', 'sent', 'paid', 'bounced', 'unknown', 'stuck', 'parked'));
CREATE INDEX orders_parked_due ON fund.orders (due_at) WHERE state = 'parked';

-- The age of an end or a release counts from its request: the recoverer moves `due_at` forward each time that it takes the order.
ALTER TABLE fund.orders ADD COLUMN step_asked_at timestamptz;
COMMENT ON COLUMN fund.orders.step_asked_at IS 'when the end of a withdrawal, or the release of a parked order, was recorded, before it is posted';

CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN kind = 'adjustment' AND after = 'posting'
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck') OR (after = 'parked' AND kind IN ('payment', 'chargeback'))
        WHEN 'parked' THEN after = 'posting' AND kind IN ('payment', 'chargeback')
        WHEN 'posted' THEN kind = 'withdrawal' AND after IN ('sent', 'paid', 'bounced', 'stuck')
        WHEN 'sent' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind = 'withdrawal' AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind = 'withdrawal' AND after IN ('posted', 'sent', 'unknown'))
        ELSE false
    END;
END $$;
