-- Merchants and versions of events, from after a seq. $1 this seq. Rows: one per event. Locks: none.
SELECT e.seq, e.merchant, e.version FROM fund.merchant_events e WHERE e.seq > $1 ORDER BY e.seq
