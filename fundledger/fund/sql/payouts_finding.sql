-- Record that a channel contradicts the recorded state of an order. $1 order, $2 channel, $3 recorded state, $4
-- state that the channel reports, $5 details (JSON). Rows: one, or none if the finding is already stored. Locks: the
-- new row.
INSERT INTO fund.channel_findings (order_id, channel, stands, says, detail, at)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::json, clock_timestamp())
ON CONFLICT ON CONSTRAINT channel_findings_once DO NOTHING
RETURNING order_id
