-- The fund database's own guards that stand and are in force. Rows: one per guard. Locks: none.
SELECT c.conname AS name FROM pg_constraint c
WHERE c.connamespace = 'fund'::regnamespace AND c.convalidated AND c.conenforced
UNION
SELECT t.tgname FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
WHERE r.relnamespace = 'fund'::regnamespace AND t.tgenabled = 'A'
UNION
SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE i.relnamespace = 'fund'::regnamespace AND x.indisunique AND x.indisvalid
