-- Indexes for lists of orders over all merchants, in the order of creation. The first one has every order. The other two have no
-- payment that was posted, so they cost a payment nothing.
CREATE INDEX orders_by_time ON fund.orders (created_at, seq);
CREATE INDEX orders_of_kind_by_time ON fund.orders (kind, created_at, seq) WHERE kind <> 'payment';
CREATE INDEX orders_in_state_by_time ON fund.orders (state, created_at, seq) WHERE state NOT IN ('posted', 'posting');
