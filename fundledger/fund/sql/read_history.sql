-- The states that an order entered after its first one. $1 order id. Rows: one per state. Locks: none.
SELECT e.state, e.at, e.detail FROM fund.events e WHERE e.order_id = $1 ORDER BY e.seq
