-- The content of a payout file. $1 channel, $2 number. Rows: one, or none. Locks: none.
SELECT f.content FROM fund.payout_files f WHERE f.channel = $1::text AND f.file_no = $2::bigint
