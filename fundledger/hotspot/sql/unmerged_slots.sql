-- Read the accounts that have a slot to merge. Such a slot is open and has no holds, but workers no longer post to it.
-- Rows: one per account. Locks: none.
SELECT r.account_number, r.slots FROM ledger.routes r
WHERE EXISTS (SELECT FROM ledger.sub_accounts s
              WHERE s.account_number = r.account_number AND s.slot >= r.slots AND s.status = 0 AND s.held = 0)
