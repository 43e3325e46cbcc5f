-- Server settings that durability depends on. Rows: one per setting: name, setting. Locks: none.
SELECT s.name, s.setting FROM pg_settings s
WHERE s.name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'server_version_num', 'max_connections', 'data_checksums')
