-- Read the slot map. Rows: one per account that was ever split or whose buffering policy ever changed. Locks: none.
SELECT r.account_number, r.slots, r.buffered, r.epoch FROM ledger.routes r
