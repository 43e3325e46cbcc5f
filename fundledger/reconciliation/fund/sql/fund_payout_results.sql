-- Every row of fund.payout_results, with its MAC. Rows: all. Locks: none.
SELECT r.channel, r.file_no, r.digest, r.format, r.lines, r.report, r.imported_by, r.at, r.mac_key, r.mac
FROM fund.payout_results r
