-- A read looks whether it has recorded the same finding before.
CREATE INDEX integrity_findings_by_account ON ledger.integrity_findings (account_number, slot);
