-- A change. $1 id. Rows: one, or none. Locks: none.
SELECT c.seq, c.id, c.kind, c.subject, c.body, c.state, c.maker, c.made_at, c.checker, c.decided_at, c.reason, c.mac_key, c.mac
FROM fund.changes c WHERE c.id = $1
