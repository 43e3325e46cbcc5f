-- The terms of orders are under MACs (fund/macs.py).

ALTER TABLE fund.orders ADD COLUMN mac bytea, ADD COLUMN mac_key smallint,
    ADD CONSTRAINT orders_mac CHECK ((mac IS NULL) = (mac_key IS NULL));
COMMENT ON COLUMN fund.orders.mac IS 'over the terms of the order; null: it is older than MACs, or somebody wrote it who has no key';

CREATE TABLE fund.trusted_orders (
    one boolean NOT NULL DEFAULT true CONSTRAINT trusted_orders_one_row PRIMARY KEY CONSTRAINT trusted_orders_one CHECK (one),
    until_seq bigint NOT NULL,
    mac bytea NOT NULL
);
COMMENT ON TABLE fund.trusted_orders IS 'up to which seq orders may have no MAC; written once, with the migration that added them';
