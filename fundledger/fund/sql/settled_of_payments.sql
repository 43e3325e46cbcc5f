-- What was settled of payments. $1 ids of payments. Rows: payment, amount, fee of each of which something was. Locks: none.
SELECT s.payment, sum(s.amount)::bigint, sum(s.fee)::bigint
FROM fund.settled_payments s JOIN fund.orders o ON o.id = s.settlement AND o.state <> 'refused'
WHERE s.payment = ANY ($1::uuid[]) GROUP BY s.payment
