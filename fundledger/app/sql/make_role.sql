-- The command that makes a role, nothing when it is there. $1 role, $2 not used. Rows: at most one. Locks: none.
SELECT format('CREATE ROLE %I', $1::text) WHERE $2::text IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1)
