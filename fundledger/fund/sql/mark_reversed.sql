-- Orders are reversed by others, written ahead. $1 orders, $2 by which. Rows: none. Locks: these orders, their payments.
WITH reversals AS (
    SELECT r.original, r.by FROM unnest($1::uuid[], $2::uuid[]) AS r (original, by)
), payments AS (
    UPDATE fund.payments p SET reversed = true FROM reversals r WHERE p.order_id = r.original
)
UPDATE fund.orders o SET reversed_by = r.by FROM reversals r WHERE o.id = r.original
