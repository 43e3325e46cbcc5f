-- Movements of the bank simulator in a period (SQLite). ?1 start (ms), ?2 end (ms, exclusive), ?3 now (ms). Rows: ref,
-- channel_ref, amount (positive for money received) and currency, ordered by time. Locks: none.
SELECT ref, channel_ref, amount, currency FROM (
    SELECT p.ref, p.channel_ref, -p.amount AS amount, p.currency, p.settles_ms AS at_ms
    FROM payouts p
    WHERE p.outcome = 'paid' AND p.settles_ms <= ?3
    UNION ALL
    SELECT f.ref, f.channel_ref, -f.amount, f.currency, f.settles_ms
    FROM refunds f
    WHERE f.outcome = 'paid' AND f.settles_ms <= ?3
    UNION ALL
    SELECT b.ref, b.channel_ref, b.amount, b.currency, b.returned_ms FROM returns b
    UNION ALL
    SELECT r.channel_ref, r.channel_ref, r.amount, r.currency, r.received_ms FROM receipts r
)
WHERE at_ms >= ?1 AND at_ms < ?2
ORDER BY at_ms, ref, amount
