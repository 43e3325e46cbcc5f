-- Ids of orders and vouchers are HMACs from now on: what was made from the names of an order is stored.

CREATE TABLE fund.former_ids (
    one boolean NOT NULL DEFAULT true CONSTRAINT former_ids_one_row PRIMARY KEY CONSTRAINT former_ids_one CHECK (one),
    until_seq bigint NOT NULL
);
COMMENT ON TABLE fund.former_ids IS 'up to which seq the ids of orders may be unkeyed hashes of their names; no row: none is';
INSERT INTO fund.former_ids (until_seq) SELECT max(o.seq) FROM fund.orders o HAVING max(o.seq) IS NOT NULL;

ALTER TABLE fund.orders ADD COLUMN of_voucher uuid, ADD COLUMN end_voucher_id uuid;
COMMENT ON COLUMN fund.orders.of_voucher IS 'of a reversal: the voucher that it reverses; null: of_order has a former id';
COMMENT ON COLUMN fund.orders.end_voucher_id IS 'of a withdrawal that ends: the voucher of its end; null: it has a former id';
