-- Record the next attempt of a chargeback, with a smaller debit of the merchant's balance. $1 order id, $2 attempt, $3
-- voucher id, $4 amount that the merchant owes in this attempt, $5 new MAC, $6 key version of the new MAC, $7 the MAC
-- as read. Rows: one, or none if the order is no longer `posting`, or has changed since it was read. Locks: the order.
UPDATE fund.orders o SET attempt = $2, voucher_id = $3, to_receivable = $4, mac = $5, mac_key = $6
WHERE o.id = $1 AND o.state = 'posting' AND o.attempt < $2 AND o.mac IS NOT DISTINCT FROM $7
RETURNING o.id
