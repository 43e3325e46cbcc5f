-- Record that the sums of a day are being computed. $1 day. Rows: none. Locks: the new row.
INSERT INTO fund.day_closings (day) VALUES ($1) ON CONFLICT ON CONSTRAINT day_closings_pkey DO NOTHING
