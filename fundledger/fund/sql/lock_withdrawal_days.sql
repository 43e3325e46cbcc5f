-- Lock the withdrawn amounts of merchants on days. $1 merchants, $2 days, pairwise. Rows: the rows that exist.
-- Locks: these rows.
SELECT d.merchant, d.day, d.amount, d.mac_key, d.mac FROM fund.withdrawal_days d
JOIN unnest($1::text[], $2::date[]) AS w (merchant, day) ON w.merchant = d.merchant AND w.day = d.day
ORDER BY d.merchant, d.day -- one lock order prevents deadlocks
FOR UPDATE OF d
