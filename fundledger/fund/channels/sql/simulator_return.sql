-- Insert a return of a paid payout, unless the payout has returned with this reference or would return more than was paid
-- (SQLite). ?1 ref of the payout, ?2 channel_ref of the return, ?3 amount, ?4 now (ms). Rows: the return, or none. Locks:
-- the database file.
INSERT INTO returns (channel_ref, ref, amount, currency, returned_ms)
SELECT ?2, p.ref, ?3, p.currency, ?4
FROM payouts p
WHERE p.ref = ?1 AND p.outcome = 'paid' AND p.settles_ms <= ?4
  AND ?3 + (SELECT coalesce(sum(r.amount), 0) FROM returns r WHERE r.ref = p.ref) <= p.amount
ON CONFLICT (channel_ref) DO NOTHING
RETURNING channel_ref, ref, amount, currency
