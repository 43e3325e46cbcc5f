-- Accounts with an open slot beyond their slot map without holds. Rows: one per account. Locks: none.
SELECT r.account_number, r.slots FROM ledger.routes r
WHERE EXISTS (SELECT FROM ledger.sub_accounts s
              WHERE s.account_number = r.account_number AND s.slot >= r.slots AND s.status = 0 AND s.held = 0)
