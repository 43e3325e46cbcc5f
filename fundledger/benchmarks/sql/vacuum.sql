-- After a bulk load, so that no vacuum starts during a measurement. Rows: none. Locks: none that writers wait for.
VACUUM (ANALYZE) ledger.vouchers, ledger.entries, ledger.sub_accounts
