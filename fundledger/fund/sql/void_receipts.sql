-- Record that the references of orders do not count any more, because their reversals are posted. $1 ids of reversals.
-- Rows: none. Locks: the reversed orders.
UPDATE fund.orders o SET receipt_void = true FROM fund.orders r
WHERE r.id = ANY ($1::uuid[]) AND r.kind = 'reversal' AND r.state = 'posted' AND o.id = r.of_order
  AND (o.channel_ref IS NOT NULL OR o.counter_ref IS NOT NULL) AND NOT o.receipt_void
