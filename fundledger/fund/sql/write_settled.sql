-- Insert the parts of payments that belong to a settlement. $1 the settlement, $2 payments, $3 amounts, $4 fees, $5 taxes.
-- Rows: none. Locks: the new rows.
INSERT INTO fund.settled_payments (settlement, payment, amount, fee, tax)
SELECT $1, s.payment, s.amount, s.fee, s.tax
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) AS s (payment, amount, fee, tax)
