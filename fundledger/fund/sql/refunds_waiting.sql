-- The number of refunds of a channel that a person may have sent, and whose end is not reported: they are posted, and the service
-- would send them. $1 channel, $2 currency. Rows: one. Locks: none.
SELECT count(*) AS waiting FROM fund.orders o
WHERE o.kind IN ('refund', 'split_refund') AND o.state = 'posted' AND o.voucher_format = 3 AND o.ending IS NULL AND o.channel = $1::text AND o.currency = $2::text
