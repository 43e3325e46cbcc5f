-- Sub-accounts whose held amount differs from the sum of their open holds. Rows: the first 100; `total` is the number
-- of all. Locks: none.
WITH open AS (
    SELECT h.account_number, h.slot, sum(h.amount) AS amount FROM ledger.holds h WHERE h.status = 0
    GROUP BY h.account_number, h.slot
)
SELECT a.id, coalesce(s.account_number, open.account_number) AS account_number, coalesce(s.slot, open.slot) AS slot,
       coalesce(s.held, 0)::text AS held, coalesce(open.amount, 0)::text AS open, count(*) OVER () AS total
FROM ledger.sub_accounts s
FULL JOIN open ON open.account_number = s.account_number AND open.slot = s.slot
LEFT JOIN ledger.accounts a ON a.number = coalesce(s.account_number, open.account_number)
WHERE coalesce(s.held, 0) <> coalesce(open.amount, 0)
ORDER BY account_number, slot LIMIT 100
