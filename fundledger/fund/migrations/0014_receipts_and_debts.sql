-- A receipt counts once, a debt is repaid by each credit, and a chargeback takes the pending part of its payment first.

-- A reference of a channel is one movement of money in one direction, whatever merchant and kind the order has. The reference of
-- an order does not count if the order was reversed, or repeats the reference of another order of an earlier version.
ALTER TABLE fund.orders ADD COLUMN receipt_void boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN fund.orders.receipt_void IS 'the reference of the channel does not count: a posted reversal reverses the order, or an order inserted before references were unique has the reference, too';
CREATE FUNCTION fund.receipt(kind text, state text, void boolean) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN void OR state = 'refused' THEN NULL
         WHEN kind = 'payment' THEN 'in'
         WHEN kind IN ('withdrawal', 'chargeback', 'refund', 'channel_cost') THEN 'out' END;
COMMENT ON FUNCTION fund.receipt IS 'the direction in which an order moves money under its reference of the channel; null: the reference does not count';
UPDATE fund.orders o SET receipt_void = true FROM fund.orders r
WHERE r.of_order = o.id AND r.kind = 'reversal' AND r.state = 'posted' AND o.channel_ref IS NOT NULL;
-- Of several orders with one reference, one whose money has certainly moved counts, and of these the oldest.
UPDATE fund.orders o SET receipt_void = true
FROM (SELECT r.id, row_number() OVER (PARTITION BY r.channel, r.channel_ref, fund.receipt(r.kind, r.state, false)
                                      ORDER BY r.state IN ('posting', 'stuck'), r.seq) AS nth
      FROM fund.orders r WHERE r.channel_ref IS NOT NULL AND fund.receipt(r.kind, r.state, r.receipt_void) IS NOT NULL) AS f
WHERE o.id = f.id AND f.nth > 1;
-- The direction is null for an order whose reference does not count, and nulls are never equal. So this index also finds such orders.
CREATE UNIQUE INDEX orders_receipt_once ON fund.orders (channel, channel_ref, fund.receipt(kind, state, receipt_void))
    WHERE channel_ref IS NOT NULL;
DROP INDEX fund.orders_by_channel_ref;

ALTER TABLE fund.orders
    ADD COLUMN set_off bigint NOT NULL DEFAULT 0 CONSTRAINT orders_set_off CHECK (set_off >= 0),
    ADD COLUMN end_set_off bigint NOT NULL DEFAULT 0 CONSTRAINT orders_end_set_off CHECK (end_set_off >= 0);
COMMENT ON COLUMN fund.orders.set_off IS 'the part of a credit, or of a withdrawal''s debit, that repays the merchant''s debt';
COMMENT ON COLUMN fund.orders.end_set_off IS 'of a bounced withdrawal: the part of the returned amount that repays the merchant''s debt';
COMMENT ON COLUMN fund.orders.from_pending IS 'of a refund or chargeback: the part that is taken from the pending amount of the payment';
COMMENT ON COLUMN fund.orders.to_receivable IS 'of a chargeback: the part that the merchant owes; of a reversal: the set-off that it undoes';
CREATE INDEX orders_of_debts ON fund.orders (merchant)
    WHERE to_receivable > 0 OR set_off > 0 OR end_set_off > 0 OR kind IN ('chargeback', 'recovery', 'write_off');

-- The debts of merchants: what posted orders made the merchant owe, less what orders that were not refused repay. A row is
-- inserted with the first debt. The migration inserts the rows of earlier debts (fund/store/debts.py).
CREATE TABLE fund.debts (
    merchant text NOT NULL CONSTRAINT debts_pkey PRIMARY KEY,
    owed bigint NOT NULL CONSTRAINT debts_owed CHECK (owed >= 0),
    mac_key smallint NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT debts_mac CHECK ((mac_key = 0) = (mac = ''))
) WITH (fillfactor = 70);
COMMENT ON COLUMN fund.debts.mac_key IS 'the key of its MAC; 0: the debt has to be computed from the orders before it is used';
CREATE INDEX debts_open ON fund.debts (merchant) WHERE owed > 0;
CREATE TRIGGER debts_no_delete BEFORE DELETE ON fund.debts FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
CREATE TRIGGER debts_no_truncate BEFORE TRUNCATE ON fund.debts FOR EACH STATEMENT EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.debts ENABLE ALWAYS TRIGGER debts_no_delete;
ALTER TABLE fund.debts ENABLE ALWAYS TRIGGER debts_no_truncate;

ALTER TABLE fund.payments
    ADD COLUMN charged_back_unsettled bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT payments_settled,
    ADD CONSTRAINT payments_settled CHECK (settled >= 0 AND refunded_unsettled >= 0 AND charged_back_unsettled >= 0
        AND settled + refunded_unsettled + charged_back_unsettled <= amount),
    ADD CONSTRAINT payments_charged_back CHECK (charged_back_unsettled <= charged_back);
COMMENT ON COLUMN fund.payments.charged_back_unsettled IS 'the part of charged_back that was taken from the pending amount';
DROP INDEX fund.payments_unsettled;
CREATE INDEX payments_unsettled ON fund.payments (merchant, seq)
    WHERE settled + refunded_unsettled + charged_back_unsettled < amount AND NOT reversed;
