-- Grant the role of the account service its rights in the account database. The role owns no table, and cannot delete from
-- the journal. The role may read transactions of other roles in pg_stat_activity, because the event feed waits for the end
-- of these transactions. Rows: none. Locks: those of GRANT.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO fundledger_account_service', current_database());
    GRANT pg_read_all_stats TO fundledger_account_service;
    GRANT USAGE ON SCHEMA ledger, daemons TO fundledger_account_service;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ledger, daemons TO fundledger_account_service;
    GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA ledger TO fundledger_account_service;
    GRANT DELETE ON ledger.buffered_entries, ledger.hot_accounts, ledger.heat TO fundledger_account_service;
    REVOKE UPDATE ON ledger.entries, ledger.outbox, ledger.route_events, ledger.line_counts FROM fundledger_account_service;
    REVOKE INSERT, UPDATE ON ledger.settings, ledger.key_fingerprints FROM fundledger_account_service;
END $$
