-- Change the token of a person, or disable the person. $1 name, $2 digest of the token, $3 time of the last new token or
-- null, $4 time from which the person is disabled or null, $5 key version of the MAC, $6 MAC. A disabled person is not
-- changed. Rows: none. Locks: the person.
UPDATE fund.persons p SET token_digest = $2, rotated_at = $3, disabled_at = $4, mac_key = $5, mac = $6
WHERE p.name = $1 AND p.disabled_at IS NULL
