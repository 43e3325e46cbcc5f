-- Read which of some transactions are still open. $1 their ids (32 bits). Rows: one per id. Locks: none.
SELECT x.id::text::bigint & 4294967295 AS id FROM pg_snapshot_xip(pg_current_snapshot()) AS x (id)
WHERE x.id::text::bigint & 4294967295 = ANY ($1::bigint[])
