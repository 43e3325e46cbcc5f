-- Record the layout of a new ledger. The layout of an initialised ledger is not changed.
-- $1 shards, $2 slots of a platform account in each shard. Rows: none. Locks: none.
INSERT INTO ledger.settings (shards, platform_slots) VALUES ($1, $2) ON CONFLICT DO NOTHING
