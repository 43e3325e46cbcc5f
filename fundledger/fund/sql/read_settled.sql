-- The parts of payments that belong to settlements. $1 ids of settlements. Rows: one per part. Locks: none.
SELECT s.settlement, s.payment, s.amount, s.fee, s.tax FROM fund.settled_payments s WHERE s.settlement = ANY ($1::uuid[])
