-- The channel says otherwise than what stands. $1 order, $2 channel, $3 what stands, $4 what it says, $5 JSON: more of it.
-- Rows: one if it is new. Locks: the new row.
INSERT INTO fund.channel_findings (order_id, channel, stands, says, detail, at)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::json, clock_timestamp())
ON CONFLICT ON CONSTRAINT channel_findings_once DO NOTHING
RETURNING order_id
