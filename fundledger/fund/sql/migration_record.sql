-- Record an applied migration. $1 number, $2 name, $3 SHA-256 of its text. Rows: none. Locks: none.
INSERT INTO public.fundledger_fund_migrations (number, name, sha256) VALUES ($1, $2, $3)
