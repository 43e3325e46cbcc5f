-- The change of a subject that waits. $1 kind, $2 subject. Rows: one, or none. Locks: none.
SELECT c.seq, c.id, c.kind, c.subject, c.body, c.state, c.maker, c.made_at, c.checker, c.decided_at, c.reason, c.mac_key, c.mac
FROM fund.changes c WHERE c.kind = $1 AND c.subject = $2 AND c.state = 'waiting'
