-- Lists of an owner's accounts are read in the order of their ids, a page at a time.
CREATE INDEX accounts_by_owner ON ledger.accounts (owner, id);
DROP INDEX ledger.accounts_owner;
