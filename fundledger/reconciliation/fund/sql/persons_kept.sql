-- Persons who requested, approved, or decided something, and have no row in fund.persons. Rows: the first 100; `total` is
-- the number of all. Locks: none.
WITH named AS (
    SELECT split_part(o.module, '/', 1) AS identity FROM fund.orders o WHERE starts_with(o.module, 'person:')
    UNION SELECT split_part(o.approved_by, '/', 1) FROM fund.orders o WHERE starts_with(o.approved_by, 'person:')
    UNION SELECT g.maker FROM fund.changes g WHERE starts_with(g.maker, 'person:')
    UNION SELECT g.checker FROM fund.changes g WHERE starts_with(g.checker, 'person:')
)
SELECT n.identity, count(*) OVER () AS total
FROM named n WHERE NOT EXISTS (SELECT FROM fund.persons p WHERE 'person:' || p.name = n.identity)
ORDER BY n.identity LIMIT 100
