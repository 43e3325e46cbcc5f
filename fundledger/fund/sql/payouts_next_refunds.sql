-- Refunds to be sent, oldest first. $1 channel, $2 limit, $3 currencies to leave out. Rows: the orders. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.kind IN ('refund', 'split_refund') AND o.state = 'posted' AND o.voucher_format = 3 AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency <> ALL ($3::text[])
ORDER BY o.seq
LIMIT $2::bigint
