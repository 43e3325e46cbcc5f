-- What payouts are behind with. $1 the channels that are configured, $2 from when on (interval) one is late. Rows: one; the
-- longest wait (s) of a withdrawal to be sent, or by how much (s) the latest payout without a final word is late; how many
-- of those there are. Locks: none.
SELECT
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(o.posted_at)), 0)::float8
     FROM fund.orders o
     WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = ANY($1::text[]) AND o.ending IS NULL) AS waiting_s,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - $2::interval - min(p.sent_at)), 0)::float8
     FROM fund.payouts p
     WHERE p.outcome IS NULL AND p.channel = ANY($1::text[]) AND p.sent_at < clock_timestamp() - $2::interval) AS late_s,
    (SELECT count(*)
     FROM fund.payouts p
     WHERE p.outcome IS NULL AND p.channel = ANY($1::text[]) AND p.sent_at < clock_timestamp() - $2::interval) AS late
