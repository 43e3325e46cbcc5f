-- Insert an import of results. $1 channel, $2 file, $3 digest, $4 format, $5 number of lines, $6 report (JSON), $7 by which
-- identity, $8 time, $9 key version of the MAC, $10 MAC. Rows: none. Locks: the new row.
INSERT INTO fund.payout_results (channel, file_no, digest, format, lines, report, imported_by, at, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
