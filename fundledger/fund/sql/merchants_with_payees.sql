-- Merchants that have a payee, also a disabled one. $1 merchants. Rows: one per such merchant. Locks: none.
SELECT m.merchant FROM unnest($1::text[]) AS m (merchant)
WHERE EXISTS (SELECT FROM fund.payees p WHERE p.merchant = m.merchant)
