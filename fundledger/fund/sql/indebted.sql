-- Merchants with a posted order that made them owe. $1 merchants. Rows: one per such merchant. Locks: none.
SELECT m.merchant FROM unnest($1::text[]) AS m (merchant)
WHERE EXISTS (
    SELECT FROM fund.orders o
    WHERE o.merchant = m.merchant AND o.to_receivable > 0 AND o.posted_at IS NOT NULL AND o.parts IS NULL
) OR EXISTS (
    SELECT FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
    WHERE p.merchant = m.merchant AND p.to_receivable > 0 AND o.posted_at IS NOT NULL
)
