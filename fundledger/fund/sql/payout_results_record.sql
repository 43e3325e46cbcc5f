-- Record the results of payouts, before their withdrawals end. $1 orders, $2 results, $3 references of the channel, $4 reasons,
-- $5 MACs, $6 key version of the MACs. The caller holds the locks of the payouts. Rows: none. Locks: these payouts.
UPDATE fund.payouts p
SET reported = n.reported, channel_ref = n.channel_ref, reported_reason = n.reason, mac = n.mac, mac_key = $6
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[]) AS n (id, reported, channel_ref, reason, mac)
WHERE p.order_id = n.id AND p.reported IS NULL
