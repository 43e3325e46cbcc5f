-- A withdrawal whose end is refused (its merchant is frozen) is tried again under another voucher's id, and a payment that is
-- just being settled is found by its own id.
COMMENT ON COLUMN fund.orders.attempt IS 'of a chargeback: how often what the merchant had was looked up; of a withdrawal: how often its end was refused';
CREATE INDEX settled_payments_by_payment ON fund.settled_payments (payment);
