-- The number of the last payout file of a channel, 0 if there is none. $1 channel. Rows: one. Locks: none.
SELECT coalesce(max(f.file_no), 0) AS file_no FROM fund.payout_files f WHERE f.channel = $1::text
