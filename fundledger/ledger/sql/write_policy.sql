-- Change the buffering policy of an account, and record the reason.
-- $1 account number, $2 buffered, $3 reason, $4 module, $5 key version, $6 MAC of the account with this policy (layout 2).
-- Rows: none. Locks: the account and its row of the slot map; the caller has locked slot 0.
WITH account AS (
    UPDATE ledger.accounts a SET buffered = $2, key_version = $5, mac = $6, layout = 2 WHERE a.number = $1 RETURNING a.number, a.slots
), route AS (
    INSERT INTO ledger.routes (account_number, slots, buffered) SELECT account.number, account.slots, $2 FROM account
    ON CONFLICT (account_number) DO UPDATE SET buffered = $2, epoch = routes.epoch + 1, changed_at = clock_timestamp()
    RETURNING account_number, slots
)
INSERT INTO ledger.route_events (account_number, slots, buffered, reason, module)
SELECT route.account_number, route.slots, $2, $3, $4 FROM route
