-- What refused reversals would have reversed stands. $1 ids of reversals. Rows: none. Locks: the orders, their payments.
WITH originals AS (
    UPDATE fund.orders o SET reversed_by = NULL WHERE o.reversed_by = ANY ($1::uuid[])
      AND o.id IN (SELECT r.of_order FROM fund.orders r WHERE r.id = ANY ($1::uuid[]))
    RETURNING o.id
)
UPDATE fund.payments p SET reversed = false FROM originals o WHERE p.order_id = o.id
