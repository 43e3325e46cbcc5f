-- Every row of fund.payout_files without its content, with its MAC. Rows: all. Locks: none.
SELECT f.channel, f.file_no, f.currency, f.format, f.lines, f.total, f.digest, f.created_by, f.created_at, f.mac_key, f.mac
FROM fund.payout_files f
