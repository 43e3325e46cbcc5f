-- What the vouchers of an order say of it. An order that was inserted before keeps its format, so that a voucher that was posted
-- for it, and is sent again, is the same voucher. A service of another version inserts its orders without the column.

ALTER TABLE fund.orders ADD COLUMN voucher_format smallint NOT NULL DEFAULT 1
    CONSTRAINT orders_voucher_format CHECK (voucher_format IN (1, 2));
COMMENT ON COLUMN fund.orders.voucher_format IS '1: a voucher has the order in its reference; 2: and its kind and order_no in its metadata. Under no MAC: it moves no money, and a voucher of the other format is refused under the id of one that is posted';
