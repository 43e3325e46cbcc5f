-- Record the next attempt of a withdrawal of all, with another amount and voucher. $1 order id, $2 attempt, $3 voucher id, $4 amount,
-- $5 fee, $6 tax in the fee, $7 set-off, $8 new MAC, $9 key version of the new MAC, $10 the MAC as read. Rows: one, or none if the order
-- is no longer `posting`, or has changed since it was read. Locks: the order.
UPDATE fund.orders o SET attempt = $2, voucher_id = $3, amount = $4, fee = $5, tax = $6, set_off = $7, mac = $8, mac_key = $9
WHERE o.id = $1 AND o.takes_all AND o.state = 'posting' AND o.attempt < $2 AND o.mac IS NOT DISTINCT FROM $10
RETURNING o.id
