-- Every row of fund.changes, with its MAC. Rows: all. Locks: none.
SELECT c.seq, c.id, c.kind, c.subject, c.body, c.state, c.maker, c.made_at, c.checker, c.decided_at, c.reason, c.mac_key, c.mac
FROM fund.changes c
