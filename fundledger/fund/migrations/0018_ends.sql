-- Every end has a way back: a payout that is paid may return, and a refund ends as `paid` or `bounced`, as a withdrawal does.

-- What the payee's bank returned of a withdrawal after it was paid: the sum of its payout returns, but those that were reversed.
ALTER TABLE fund.orders ADD COLUMN returned bigint NOT NULL DEFAULT 0;
ALTER TABLE fund.orders ADD CONSTRAINT orders_returned
    CHECK (returned = 0 OR (kind = 'withdrawal' AND state = 'paid' AND returned BETWEEN 0 AND amount));
COMMENT ON COLUMN fund.orders.returned IS 'of a withdrawal: the sum of its payout returns that were not reversed';

-- A refund of an earlier voucher format has credited the bank account when it was posted. Its money is never sent.
ALTER TABLE fund.orders ADD CONSTRAINT orders_end_of_refund CHECK (kind <> 'refund' OR voucher_format = 3
    OR (ending IS NULL AND state NOT IN ('sent', 'unknown', 'paid', 'bounced') AND coalesce(stuck_from, 'posting') = 'posting'));
CREATE INDEX orders_to_refund ON fund.orders (channel, seq) WHERE kind = 'refund' AND state = 'posted' AND voucher_format = 3;
COMMENT ON COLUMN fund.orders.ending IS 'of a withdrawal or refund: how it ends, written before the voucher of its end is posted';
COMMENT ON COLUMN fund.orders.end_set_off IS 'of a bounced withdrawal or refund: the part of the returned amount that repays the merchant''s debt';
COMMENT ON COLUMN fund.orders.voucher_format IS '1: a voucher has the order in its reference; 2: and its kind and order_no in its metadata; 3: of a refund: and it credits transit instead of the bank account';

-- The payouts of withdrawals and of refunds. A process of an earlier version inserts payouts of withdrawals without the column.
ALTER TABLE fund.payouts ADD COLUMN kind text NOT NULL DEFAULT 'withdrawal'
    CONSTRAINT payouts_kind CHECK (kind IN ('withdrawal', 'refund'));
COMMENT ON COLUMN fund.payouts.kind IS 'the kind of its order: it determines by which call of the channel the money is sent';

-- Refunds through channels of an earlier version were made by hand. If the service also sent them, payers would get them twice.
ALTER TABLE fund.channels ADD COLUMN refund text NOT NULL DEFAULT 'manual'
    CONSTRAINT channels_refund CHECK (refund IN ('payout', 'http', 'file', 'manual'));
COMMENT ON COLUMN fund.channels.refund IS 'how refunds are made; payout: as payouts';

-- Shared definitions

ALTER TABLE fund.orders DROP CONSTRAINT orders_voucher_format,
    ADD CONSTRAINT orders_voucher_format CHECK (voucher_format IN (1, 2, 3));

-- A payout return may credit more than its amount: a part of the fee. If all of this repaid a debt, the reversal restores it.
ALTER TABLE fund.orders DROP CONSTRAINT orders_to_receivable,
    ADD CONSTRAINT orders_to_receivable
        CHECK (to_receivable >= 0 AND (to_receivable <= amount OR (kind = 'reversal' AND to_receivable <= amount + fee)));

-- As in migration 0014. In addition, the direction of payout returns.
CREATE OR REPLACE FUNCTION fund.receipt(kind text, state text, void boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN void OR state = 'refused' THEN NULL
         WHEN kind IN ('payment', 'payout_return') THEN 'in'
         WHEN kind IN ('withdrawal', 'chargeback', 'refund', 'channel_cost') THEN 'out' END;

-- A copy of the table in fund/model/transitions.py, as in migration 0017. In addition, payout returns, and the ends of refunds.
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN before = after OR CASE before
        WHEN 'created' THEN kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal') AND after IN ('posting', 'rejected', 'expired')
        WHEN 'posting' THEN after IN ('posted', 'refused', 'stuck') OR (after = 'parked' AND kind IN ('payment', 'chargeback', 'payout_return'))
        WHEN 'parked' THEN after = 'posting' AND kind IN ('payment', 'chargeback', 'payout_return')
        WHEN 'posted' THEN kind IN ('withdrawal', 'refund') AND after IN ('sent', 'paid', 'bounced', 'stuck')
        WHEN 'sent' THEN kind IN ('withdrawal', 'refund') AND after IN ('paid', 'bounced', 'unknown', 'stuck')
        WHEN 'unknown' THEN kind IN ('withdrawal', 'refund') AND after IN ('paid', 'bounced', 'stuck')
        WHEN 'stuck' THEN after = 'posting' OR (kind IN ('withdrawal', 'refund') AND after IN ('posted', 'sent', 'unknown'))
        ELSE false
    END;
END $$;
