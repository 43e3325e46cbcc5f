-- Where workers post to, of accounts that were ever split. Rows: one per such account. Locks: none.
SELECT r.account_number, r.slots, r.buffered, r.epoch FROM ledger.routes r
