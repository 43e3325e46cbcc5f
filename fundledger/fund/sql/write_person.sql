-- Insert a person. $1 name, $2 roles, $3 digest of the token, $4 the creator, $5 time, $6 key version of the MAC, $7 MAC,
-- $8 maximum number of persons. Rows: one, or none if the name exists in any case, or if there are $8 persons. Locks: the
-- new row.
INSERT INTO fund.persons (name, roles, token_digest, created_by, created_at, mac_key, mac)
SELECT $1, $2::text[], $3, $4, $5, $6, $7 WHERE (SELECT count(*) FROM fund.persons) < $8
ON CONFLICT DO NOTHING
RETURNING name
