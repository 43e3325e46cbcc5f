-- The lag of payouts. $1 configured channels, $2 interval after which a payout is late. `waiting_s`: the longest wait
-- of a withdrawal that is not sent yet, whose merchant is not suspended. `refund_waiting_s`: of a refund, unless a person sends the
-- refunds of its channel. `late_s`: the longest time for which a payout without a final status has been late. `late`: the number of
-- late payouts. Rows: one. Locks: none.
SELECT
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(o.posted_at)), 0)::float8
     FROM fund.orders o
     WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = ANY($1::text[]) AND o.ending IS NULL
       AND NOT EXISTS (SELECT FROM fund.merchants m WHERE m.id = o.merchant AND m.state = 'suspended')) AS waiting_s,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(o.posted_at)), 0)::float8
     FROM fund.orders o LEFT JOIN fund.channels c ON c.name = o.channel AND c.currency = o.currency
     WHERE o.kind IN ('refund', 'split_refund') AND o.state = 'posted' AND o.voucher_format = 3 AND o.channel = ANY($1::text[]) AND o.ending IS NULL
       AND coalesce(nullif(c.refund, 'payout'), c.payout, 'http') = 'http') AS refund_waiting_s,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - $2::interval - min(p.sent_at)), 0)::float8
     FROM fund.payouts p
     WHERE p.outcome IS NULL AND p.channel = ANY($1::text[]) AND p.file_no IS NULL AND p.sent_at < clock_timestamp() - $2::interval) AS late_s,
    (SELECT count(*)
     FROM fund.payouts p
     WHERE p.outcome IS NULL AND p.channel = ANY($1::text[]) AND p.file_no IS NULL AND p.sent_at < clock_timestamp() - $2::interval) AS late
