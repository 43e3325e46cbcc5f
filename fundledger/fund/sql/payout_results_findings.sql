-- Record findings of an import of results. $1 channel, then arrays: $2 orders, $3 recorded states, $4 reports, $5 details
-- (JSON). A finding that is already stored is skipped. Rows: one per new finding. Locks: the new rows.
INSERT INTO fund.channel_findings (order_id, channel, stands, says, detail, at)
SELECT f.id, $1::text, f.stands, f.says, f.detail::json, clock_timestamp()
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS f (id, stands, says, detail)
ON CONFLICT ON CONSTRAINT channel_findings_once DO NOTHING
RETURNING order_id
