-- Rolling reserves of merchants, and reserve holds that are released on a day.

ALTER TABLE fund.merchants
    ADD COLUMN rolling_basis_points smallint CONSTRAINT merchants_rolling_basis_points CHECK (rolling_basis_points BETWEEN 1 AND 10000),
    ADD COLUMN rolling_days smallint CONSTRAINT merchants_rolling_days CHECK (rolling_days BETWEEN 1 AND 1095),
    ADD COLUMN rolling_from date CONSTRAINT merchants_rolling_from CHECK (rolling_from BETWEEN '1970-01-01' AND '9999-11-30'),
    ADD CONSTRAINT merchants_rolling
        CHECK ((rolling_basis_points IS NULL) = (rolling_days IS NULL) AND (rolling_basis_points IS NULL) = (rolling_from IS NULL));
COMMENT ON COLUMN fund.merchants.rolling_basis_points IS 'the part of what is credited on a day that is held in reserve, in hundredths of a percent; null: none';
COMMENT ON COLUMN fund.merchants.rolling_days IS 'the days for which the part is held';
COMMENT ON COLUMN fund.merchants.rolling_from IS 'the first day to which the rule applies';
CREATE INDEX merchants_rolling_by_id ON fund.merchants (id) WHERE rolling_basis_points IS NOT NULL;

ALTER TABLE fund.orders DROP CONSTRAINT orders_settle_on,
    ADD CONSTRAINT orders_settle_on CHECK (settle_on IS NULL OR (
        ((kind = 'payment' AND settle = 'later') OR kind = 'reserve_hold') AND settle_on BETWEEN '1970-01-01' AND '9999-11-30'));
COMMENT ON COLUMN fund.orders.settle_on IS 'of a payment that is settled later: the day on which it is due, by the calendar of its merchant when it was created; of a reserve hold: the day on which the job reserves releases it, null if only a request releases it';
COMMENT ON COLUMN fund.orders.reversed_by IS 'the order that reverses this order, clears it if it is parked, or releases it if it is a reserve hold';
CREATE INDEX orders_held ON fund.orders (settle_on, merchant, id) WHERE kind = 'reserve_hold' AND settle_on IS NOT NULL AND reversed_by IS NULL AND state = 'posted';
CREATE INDEX orders_in_reserve ON fund.orders (merchant) WHERE kind IN ('reserve_hold', 'reserve_release') AND settle_on IS NULL AND of_order IS NULL;
CREATE INDEX orders_unparked ON fund.orders (posted_at) WHERE parking = 'release';
