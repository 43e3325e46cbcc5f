-- Read the accounts that are not cold. Rows: one per account. Locks: none.
SELECT h.account_number, h.state, h.since, h.utilisation FROM ledger.hot_accounts h
