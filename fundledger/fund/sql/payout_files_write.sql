-- Insert a payout file. $1 channel, $2 number, $3 currency, $4 format, $5 number of payouts, $6 their sum, $7 digest, $8 by
-- which identity, $9 time, $10 content, $11 key version of the MAC, $12 MAC. Rows: none. Locks: the new row.
INSERT INTO fund.payout_files (channel, file_no, currency, format, lines, total, digest, created_by, created_at, content, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
