-- Create the fund database of an embedded server. Rows: none. Locks: none.
CREATE DATABASE fundledger_fund
