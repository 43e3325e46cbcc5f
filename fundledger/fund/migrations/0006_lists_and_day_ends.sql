-- A day is closed, and orders in a state are listed, without reading all orders.
CREATE INDEX orders_by_day ON fund.orders USING brin (posted_at) WITH (autosummarize = on);
CREATE INDEX orders_first ON fund.orders USING brin (seq) WITH (autosummarize = on);
-- What most orders are stays out of it: they cost nothing here.
CREATE INDEX orders_in_state ON fund.orders (merchant, kind, state, seq) WHERE state NOT IN ('posted', 'posting');
