-- Create the table of applied migrations. Rows: none. Locks: the new table.
CREATE TABLE IF NOT EXISTS public.fundledger_fund_migrations (
    number integer CONSTRAINT fundledger_fund_migrations_pkey PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
