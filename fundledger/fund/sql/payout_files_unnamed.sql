-- Withdrawals without payee that are to be paid out: a person pays them. $1 channel, $2 currency. Rows: one, their number.
-- Locks: none.
SELECT count(*) AS orders
FROM fund.orders o
WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency = $2::text AND o.payee IS NULL
