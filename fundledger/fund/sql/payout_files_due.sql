-- Withdrawals with a payee that are to be paid out, oldest first. $1 channel, $2 currency, $3 limit, $4 merchants to leave out.
-- Rows: the orders. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency = $2::text AND o.payee IS NOT NULL AND o.merchant <> ALL ($4::text[])
ORDER BY o.seq
LIMIT $3::bigint
