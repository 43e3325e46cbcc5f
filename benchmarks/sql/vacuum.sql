-- Vacuum the tables after a bulk load, so that no autovacuum starts during a measurement. Rows: none. Locks: none that
-- block writers.
VACUUM (ANALYZE) ledger.vouchers, ledger.entries, ledger.sub_accounts
