-- Change the number of slots to which workers post for an account, and record the reason. If the slot map has this number
-- already, the slot map is not changed and no reason is recorded.
-- $1 account number, $2 slots, $3 reason, $4 module, $5 key version, $6 MAC of the account with these slots (layout 2).
-- Rows: none. Locks: the account and its row of the slot map; the caller has locked the account's sub-accounts.
WITH route AS (
    INSERT INTO ledger.routes (account_number, slots, buffered)
    SELECT a.number, $2, a.buffered FROM ledger.accounts a WHERE a.number = $1
    ON CONFLICT (account_number) DO UPDATE SET slots = $2, epoch = routes.epoch + 1, changed_at = clock_timestamp()
    WHERE routes.slots <> $2
    RETURNING account_number
), account AS (
    UPDATE ledger.accounts SET slots = $2, key_version = $5, mac = $6, layout = 2 WHERE number = $1
)
INSERT INTO ledger.route_events (account_number, slots, reason, module)
SELECT route.account_number, $2, $3, $4 FROM route
