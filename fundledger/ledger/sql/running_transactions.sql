-- Read which of the given transactions are still open. $1 transaction ids (32 bits). Rows: one per open transaction. Locks: none.
SELECT x.id::text::bigint & 4294967295 AS id FROM pg_snapshot_xip(pg_current_snapshot()) AS x (id)
WHERE x.id::text::bigint & 4294967295 = ANY ($1::bigint[])
