-- A chargeback's next attempt: less is taken from what the merchant has. $1 order id, $2 attempt, $3 voucher id,
-- $4 how much the merchant owes then, $5 the MAC, $6 the key of it, $7 the MAC that the order was read with.
-- Rows: one, none when it is not posting any more, or changed since. Locks: the order.
UPDATE fund.orders o SET attempt = $2, voucher_id = $3, to_receivable = $4, mac = $5, mac_key = $6
WHERE o.id = $1 AND o.state = 'posting' AND o.attempt < $2 AND o.mac IS NOT DISTINCT FROM $7
RETURNING o.id
