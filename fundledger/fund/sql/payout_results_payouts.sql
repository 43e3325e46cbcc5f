-- Lock the payouts of a file. $1 channel, $2 file. `ending`: the recorded end of the withdrawal, or null. Rows: the payouts, in
-- the sequence of the file. Locks: these payouts.
SELECT p.order_id, p.kind, p.channel, p.amount, p.currency, p.outcome, p.channel_ref, p.file_no, p.line_no, p.reported, p.reported_reason,
    p.mac_key, p.mac, o.ending
FROM fund.payouts p JOIN fund.orders o ON o.id = p.order_id
WHERE p.channel = $1::text AND p.file_no = $2::bigint
ORDER BY p.line_no
FOR UPDATE OF p
