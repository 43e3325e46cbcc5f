-- Read the applied migrations. Rows: one per migration. Locks: none.
SELECT m.number, m.name, m.sha256 FROM public.fundledger_migrations m ORDER BY m.number
