-- Rows of fund.withdrawal_days without a MAC. $1 merchant and $2 day of the row to start after, $3 limit. Rows: at most
-- $3, ordered by merchant and day. Locks: these rows.
SELECT d.merchant, d.day, d.amount, d.mac_key, d.mac FROM fund.withdrawal_days d
WHERE d.mac_key = 0 AND (d.merchant, d.day) > ($1::text, $2::date) ORDER BY d.merchant, d.day LIMIT $3 FOR UPDATE
