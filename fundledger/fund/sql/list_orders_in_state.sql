-- Orders of a merchant, of one kind and in a state that few orders have, oldest first. $1 merchant, $2 kind, $3 state,
-- $4 seq to start after, $5 limit. $3 must be neither `posted` nor `posting`: the query repeats this condition, so that
-- the partial index is used. Rows: at most $5. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.merchant = $1 AND o.kind = $2 AND o.seq > $4 AND o.state = $3::text
  AND o.state NOT IN ('posted', 'posting')
ORDER BY o.seq LIMIT $5
