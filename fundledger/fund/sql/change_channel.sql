-- Change a channel. $1 name, $2 currency, $3 payout method, $4 whether references are unique, $5 overdraft or null, $6
-- state, $7 by which identity, $8 key version of the MAC, $9 MAC, $10 refund method. The caller holds the lock of
-- the channel. Rows: none. Locks: the channel.
UPDATE fund.channels c
SET payout = $3, references_unique = $4, overdraft = $5, state = $6, registered_by = $7, mac_key = $8, mac = $9,
    refund = $10
WHERE c.name = $1 AND c.currency = $2
