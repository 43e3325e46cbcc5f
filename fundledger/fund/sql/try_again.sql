-- Record the next attempt of a fact or a dispute, with another voucher. $1 order id, $2 attempt, $3 voucher id, $4
-- amount that the merchant owes in this attempt, $5 `park` if this attempt parks the order, else null, $6 new MAC, $7 key
-- version of the new MAC, $8 the MAC as read, $9 parts (JSON) of a split order or null. Rows: one, or none if the order is no
-- longer `posting`, or has changed since it was read. Locks: the order.
UPDATE fund.orders o SET attempt = $2, voucher_id = $3, to_receivable = $4, parking = $5, mac = $6, mac_key = $7,
                         set_off = CASE WHEN $5::text IS NULL THEN o.set_off ELSE 0 END, parts = $9::json
WHERE o.id = $1 AND o.state = 'posting' AND o.attempt < $2 AND o.mac IS NOT DISTINCT FROM $8
RETURNING o.id
