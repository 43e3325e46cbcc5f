-- Return the command that sets a role's password and revokes every special right. $1 role, $2 password. Rows: one. Locks: none.
SELECT format(
    'ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L', $1::text, $2::text
)
