-- Write MACs of layout 2 of orders that have not changed since they were read. $1 ids, $2 MACs, $3 key version of the
-- MACs; then the values as read: $4 MACs, $5 states, $6 problems, $7 times of posting, $8 reversing orders. Rows: one
-- per written order. Locks: these orders.
UPDATE fund.orders o SET layout = 2, mac = n.mac, mac_key = $3
FROM unnest($1::uuid[], $2::bytea[], $4::bytea[], $5::text[], $6::text[], $7::timestamptz[], $8::uuid[])
    AS n (id, mac, found, state, problem, posted_at, reversed_by)
WHERE o.id = n.id AND o.layout = 1 AND o.mac IS NOT DISTINCT FROM n.found AND o.state = n.state
  AND o.problem::text IS NOT DISTINCT FROM n.problem AND o.posted_at IS NOT DISTINCT FROM n.posted_at
  AND o.reversed_by IS NOT DISTINCT FROM n.reversed_by
RETURNING o.id
