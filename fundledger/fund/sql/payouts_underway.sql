-- The sum of the payouts that are sent and not ended. $1 channel, $2 currency. Rows: one. Locks: none.
SELECT coalesce(sum(p.amount), 0) AS amount FROM fund.payouts p
WHERE p.outcome IS NULL AND p.channel = $1 AND p.currency = $2
