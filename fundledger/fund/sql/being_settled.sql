-- Payments in a settlement that is not known to be posted, or became stuck before that. $1 payment ids. Rows: one each.
-- Locks: none.
SELECT DISTINCT s.payment FROM fund.settled_payments s JOIN fund.orders o ON o.id = s.settlement
WHERE s.payment = ANY ($1::uuid[]) AND o.state IN ('posting', 'stuck')
