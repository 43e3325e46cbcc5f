-- Insert a change that waits for a decision. $1 id, $2 kind, $3 subject, $4 body (JSON), $5 maker, $6 time, $7 key
-- version of the MAC, $8 MAC. Rows: its seq, or none if a change of this kind and subject waits. Locks: the new row.
INSERT INTO fund.changes (id, kind, subject, body, state, maker, made_at, mac_key, mac)
VALUES ($1, $2, $3, $4, 'waiting', $5, $6, $7, $8)
ON CONFLICT (kind, subject) WHERE state = 'waiting' DO NOTHING
RETURNING seq
