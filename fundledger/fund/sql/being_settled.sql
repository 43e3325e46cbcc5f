-- Payments that are part of a settlement whose outcome is not known, or of a settlement that became stuck before it was
-- posted, or of a settlement with such a reversal. $1 payment ids. Rows: one per such payment. Locks: none.
SELECT DISTINCT s.payment FROM fund.settled_payments s JOIN fund.orders o ON o.id = s.settlement
LEFT JOIN fund.orders r ON r.id = o.reversed_by
WHERE s.payment = ANY ($1::uuid[]) AND (o.state IN ('posting', 'stuck') OR r.state IN ('posting', 'stuck'))
