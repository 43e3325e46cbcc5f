-- Settled amounts of payments. A settlement whose reversal is posted settles nothing. $1 payment ids. Rows: payment, settled
-- amount, fee and tax, one per payment with a settled part. Locks: none.
SELECT s.payment, sum(s.amount)::bigint, sum(s.fee)::bigint, sum(s.tax)::bigint
FROM fund.settled_payments s JOIN fund.orders o ON o.id = s.settlement AND o.state <> 'refused'
WHERE s.payment = ANY ($1::uuid[])
  AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted')
GROUP BY s.payment
