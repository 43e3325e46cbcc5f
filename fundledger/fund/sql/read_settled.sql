-- Which parts of which payments settlements settle. $1 settlements. Rows: one a part. Locks: none.
SELECT s.settlement, s.payment, s.amount, s.fee FROM fund.settled_payments s WHERE s.settlement = ANY ($1::uuid[])
