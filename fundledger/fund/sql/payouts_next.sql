-- Withdrawals to be sent, oldest first. Withdrawals of suspended merchants are left out. $1 channel, $2 limit, $3 currencies and $4
-- merchants to leave out. Rows: the orders. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency <> ALL ($3::text[]) AND o.merchant <> ALL ($4::text[])
  AND NOT EXISTS (SELECT FROM fund.merchants m WHERE m.id = o.merchant AND m.state = 'suspended')
ORDER BY o.seq
LIMIT $2::bigint
