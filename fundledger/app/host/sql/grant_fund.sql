-- Grant the role of the fund service its rights in the fund database. The role owns no table. The role may read
-- transactions of other roles in pg_stat_activity, for the reason in grant_account.sql. Rows: none. Locks: those of GRANT.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO fundledger_fund_service', current_database());
    GRANT pg_read_all_stats TO fundledger_fund_service;
    GRANT USAGE ON SCHEMA fund, outbox, daemons TO fundledger_fund_service;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA fund, outbox, daemons TO fundledger_fund_service;
    GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA fund, outbox TO fundledger_fund_service;
    GRANT DELETE ON outbox.deliveries TO fundledger_fund_service;
    REVOKE UPDATE ON fund.events, fund.fee_rules, fund.settled_payments FROM fundledger_fund_service;
    REVOKE UPDATE ON fund.integrity_findings FROM fundledger_fund_service;
    REVOKE UPDATE ON fund.calendars, fund.ends, fund.day_closings, fund.merchant_events FROM fundledger_fund_service;
    REVOKE INSERT, UPDATE ON fund.unswept FROM fundledger_fund_service;
    GRANT DELETE ON fund.unswept TO fundledger_fund_service;
    REVOKE INSERT, UPDATE ON fund.key_fingerprints, fund.identity, fund.persons FROM fundledger_fund_service;
END $$
