-- What merchants withdrew on a day. $1 merchants, $2 day. Rows: one for each that withdrew. Locks: none.
SELECT d.merchant, d.amount FROM fund.withdrawal_days d WHERE d.merchant = ANY ($1::text[]) AND d.day = $2
