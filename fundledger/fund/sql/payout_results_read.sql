-- An import of results. $1 channel, $2 file, $3 digest of the content. Rows: one, or none. Locks: none.
SELECT r.channel, r.file_no, r.digest, r.format, r.lines, r.report, r.imported_by, r.at, r.mac_key, r.mac
FROM fund.payout_results r WHERE r.channel = $1::text AND r.file_no = $2::bigint AND r.digest = $3::bytea
