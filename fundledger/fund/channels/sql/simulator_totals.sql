-- Totals over all payouts of the bank simulator: numbers by outcome, requests, conflicts, paid amount; and over all refunds:
-- number, conflicts, refunded amount (SQLite). ?1 now (ms). Rows: one. Locks: none.
SELECT
    count(*) AS payouts,
    coalesce(sum(p.asked), 0) AS asked,
    coalesce(sum(p.conflicts), 0) AS conflicts,
    coalesce(sum(p.settles_ms > ?1), 0) AS accepted,
    coalesce(sum(p.outcome = 'paid' AND p.settles_ms <= ?1), 0) AS paid,
    coalesce(sum(CASE WHEN p.outcome = 'paid' AND p.settles_ms <= ?1 THEN p.amount END), 0) AS paid_amount,
    coalesce(sum(p.outcome = 'bounced' AND p.settles_ms <= ?1), 0) AS bounced,
    (SELECT count(*) FROM refunds f) AS refunds,
    (SELECT coalesce(sum(f.conflicts), 0) FROM refunds f) AS refund_conflicts,
    (SELECT coalesce(sum(f.amount), 0) FROM refunds f WHERE f.outcome = 'paid' AND f.settles_ms <= ?1) AS refunded_amount,
    (SELECT coalesce(sum(b.amount), 0) FROM returns b) AS returned_amount
FROM payouts p
