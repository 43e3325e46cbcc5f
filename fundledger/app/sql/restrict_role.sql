-- The command that gives a role its password and takes every special right from it. $1 role, $2 password. Rows: one. Locks: none.
SELECT format(
    'ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L', $1::text, $2::text
)
