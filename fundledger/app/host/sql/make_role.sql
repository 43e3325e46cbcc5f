-- Return the command that creates a role. $1 role, $2 not used. Rows: one, none if the role exists. Locks: none.
SELECT format('CREATE ROLE %I', $1::text) WHERE $2::text IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1)
