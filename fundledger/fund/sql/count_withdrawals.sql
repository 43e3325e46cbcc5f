-- Count what merchants withdraw on a day. $1 merchants, $2 amounts, $3 day. Each merchant once. Rows: none. Locks: the
-- merchants' day.
INSERT INTO fund.withdrawal_days AS d (merchant, day, amount)
SELECT w.merchant, $3, w.amount FROM unnest($1::text[], $2::bigint[]) AS w (merchant, amount) ORDER BY w.merchant
ON CONFLICT (merchant, day) DO UPDATE SET amount = d.amount + excluded.amount
