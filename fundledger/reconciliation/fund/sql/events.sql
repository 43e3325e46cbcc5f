-- History of all orders, ordered by order and seq. Rows: one per event. Locks: none.
SELECT e.order_id, e.seq, e.merchant, e.kind, e.state FROM fund.events e ORDER BY e.order_id, e.seq
