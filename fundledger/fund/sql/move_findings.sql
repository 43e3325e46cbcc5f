-- Move the head of the chain of findings to the last finding. $1 seq of this finding, $2 MAC of this finding, $3 key
-- version, $4 MAC of the head. Rows: none. Locks: the head.
UPDATE fund.findings_head SET seq = $1, last_mac = $2, key_version = $3, mac = $4
