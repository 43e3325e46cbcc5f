-- Create the account database of an embedded server. Rows: none. Locks: none.
CREATE DATABASE fundledger_account
