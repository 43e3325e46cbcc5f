-- Grant the account service its rights in its database: it owns no table, and cannot delete from the journal.
-- It may read other roles' transactions in pg_stat_activity: the event feed waits for their end. Rows: none. Locks: of grants.
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
