-- Holds whose sub-account is missing or in another shard. Rows: the first 100; `total` is the number of all. Locks:
-- none.
SELECT h.id, h.account_number, h.slot, h.shard, count(*) OVER () AS total
FROM ledger.holds h WHERE NOT EXISTS (
    SELECT 1 FROM ledger.sub_accounts s WHERE s.account_number = h.account_number AND s.slot = h.slot AND s.shard = h.shard
) ORDER BY h.id LIMIT 100
