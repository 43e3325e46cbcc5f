-- The last final order of a merchant, named `auto-close-NUMBER`: its number, its state, and whether the merchant was requested to be
-- closed after it was created. $1 merchant, $2 kind, $3 the requester of final orders. Rows: one, or none. Locks: none.
SELECT substr(o.order_no, 12)::bigint AS number, o.state,
       EXISTS (SELECT FROM fund.merchant_events e WHERE e.merchant = $1 AND e.what = 'closing' AND e.at > o.created_at) AS asked_again
FROM fund.orders o
WHERE o.merchant = $1 AND o.kind = $2 AND o.order_no ~ '^auto-close-\d{1,9}$' AND o.module = $3
ORDER BY substr(o.order_no, 12)::bigint DESC LIMIT 1
