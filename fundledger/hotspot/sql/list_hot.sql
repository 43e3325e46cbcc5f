-- List accounts that are hot or split. Rows: one per account, highest utilisation first. Locks: none.
SELECT a.id, coalesce(h.state, 'cold') AS state, coalesce(h.utilisation, 0) AS utilisation, coalesce(r.slots, 1) AS slots,
       coalesce(h.since, r.changed_at) AS since,
       (SELECT e.reason FROM ledger.route_events e WHERE e.account_number = a.number ORDER BY e.id DESC LIMIT 1) AS reason
FROM ledger.accounts a
LEFT JOIN ledger.hot_accounts h ON h.account_number = a.number
LEFT JOIN ledger.routes r ON r.account_number = a.number
WHERE h.account_number IS NOT NULL OR r.slots > 1
ORDER BY coalesce(h.utilisation, 0) DESC, a.id
