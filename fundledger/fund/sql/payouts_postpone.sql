-- Schedule the next check of a payout that does not match its MAC. $1 order, $2 interval from now. Rows: none. Locks:
-- the row of the payout.
UPDATE fund.payouts p SET due_at = clock_timestamp() + $2::interval WHERE p.order_id = $1::uuid AND p.outcome IS NULL
