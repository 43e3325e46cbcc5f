-- Every row of fund.persons, with its MAC. Rows: all. Locks: none.
SELECT p.name, p.roles, p.token_digest, p.created_by, p.created_at, p.rotated_at, p.disabled_at, p.mac_key, p.mac
FROM fund.persons p
