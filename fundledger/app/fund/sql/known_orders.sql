-- Find the given orders that exist. $1: order ids. Rows: one per existing order: id. Locks: none.
SELECT id FROM fund.orders WHERE id = ANY($1::uuid[])
