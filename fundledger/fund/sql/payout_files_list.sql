-- Payout files of a channel, by number. $1 channel, $2 number to start after, $3 limit. Rows: at most $3. Locks: none.
SELECT f.channel, f.file_no, f.currency, f.format, f.lines, f.total, f.digest, f.created_by, f.created_at, f.mac_key, f.mac
FROM fund.payout_files f WHERE f.channel = $1::text AND f.file_no > $2::bigint ORDER BY f.file_no LIMIT $3::bigint
