-- The sums of a closed day, ordered by merchant, kind, currency and state. $1 day, $2 merchant, $3 kind, $4 currency and
-- $5 state of the sum to start after, $6 limit. Rows: at most $6. Locks: none.
SELECT s.merchant, s.kind, s.currency, s.state, s.orders, s.amount, s.fee, s.tax, s.ended, s.ended_amount, s.ended_fee
FROM fund.day_sums s
WHERE s.day = $1::date AND (s.merchant, s.kind, s.currency, s.state) > ($2::text, $3::text, $4::text, $5::text)
ORDER BY s.merchant, s.kind, s.currency, s.state LIMIT $6::bigint
