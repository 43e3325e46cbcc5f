-- What merchants withdrew on days (UTC). $1 merchants, $2 days, side by side. Rows: one for each that is there. Locks: these rows.
SELECT d.merchant, d.day, d.amount, d.mac_key, d.mac FROM fund.withdrawal_days d
JOIN unnest($1::text[], $2::date[]) AS w (merchant, day) ON w.merchant = d.merchant AND w.day = d.day
ORDER BY d.merchant, d.day -- so that two who lock several never wait for each other
FOR UPDATE OF d
