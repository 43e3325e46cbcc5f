-- Accounts whose number of slots or posting policy differs between four rows: the account, its slot map
-- (ledger.routes), its last event in ledger.route_events, and its first slot. Rows: the first 100; `total` is the
-- number of all. Locks: none.
WITH last AS (
    SELECT DISTINCT ON (e.account_number) e.account_number, e.slots,
           (SELECT p.buffered FROM ledger.route_events p
            WHERE p.account_number = e.account_number AND p.buffered IS NOT NULL ORDER BY p.id DESC LIMIT 1) AS buffered
    FROM ledger.route_events e ORDER BY e.account_number, e.id DESC
)
SELECT a.id, coalesce(r.account_number, l.account_number) AS account_number,
       format('slots %s, buffered %s', l.slots, coalesce(l.buffered, s.buffered)) AS expected,
       format('route: slots %s, buffered %s, account: slots %s, buffered %s, slot 0: slots %s, buffered %s',
              r.slots, r.buffered, a.slots, a.buffered, s.slots, s.buffered) AS actual,
       count(*) OVER () AS total
FROM ledger.routes r FULL JOIN last l ON l.account_number = r.account_number
LEFT JOIN ledger.accounts a ON a.number = coalesce(r.account_number, l.account_number)
LEFT JOIN ledger.sub_accounts s ON s.account_number = a.number AND s.shard = a.shard AND s.slot = 0
WHERE (r.slots, a.slots, r.buffered, a.buffered, s.buffered)
          IS DISTINCT FROM (l.slots, l.slots, coalesce(l.buffered, s.buffered), coalesce(l.buffered, s.buffered), coalesce(l.buffered, s.buffered))
   OR s.slots IS NULL OR s.slots < l.slots
ORDER BY account_number LIMIT 100
