-- Row counts of the ledger. Rows: one. Locks: none.
SELECT (SELECT count(*) FROM ledger.vouchers) AS vouchers, (SELECT coalesce(sum(coalesce(cardinality(vouchers), 1)), 0) FROM ledger.entries)::bigint AS entries,
       (SELECT count(*) FROM ledger.accounts) AS accounts, (SELECT count(*) FROM ledger.sub_accounts) AS sub_accounts,
       (SELECT count(*) FROM ledger.holds) AS holds,
       (SELECT count(*) FROM ledger.vouchers WHERE reverses IS NOT NULL) AS reversals
