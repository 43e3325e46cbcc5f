-- Payees that differ from the change that registered them, or have none, and changes that were applied without a payee. A
-- payee that is replaced has to be disabled. Account numbers are not shown. Rows: the first 100; `total` is the number of
-- all. Locks: none.
WITH made AS (
    SELECT g.id, g.maker, split_part(g.subject, ' ', 1) AS merchant, g.body::jsonb AS body
    FROM fund.changes g WHERE g.kind = 'payee' AND g.state = 'applied'
)
SELECT coalesce(p.id, m.id) AS id, c.name, CASE WHEN c.name IN ('iban', 'account') THEN 'as requested' ELSE c.expected END AS expected,
       CASE WHEN c.name IN ('iban', 'account') THEN 'another one' ELSE c.actual END AS actual, count(*) OVER () AS total
FROM fund.payees p FULL JOIN made m ON m.id = p.id
LEFT JOIN fund.payees r ON r.id = p.replaces
CROSS JOIN LATERAL (VALUES
    ('row', CASE WHEN m.id IS NULL THEN 'a change' ELSE 'a payee' END, CASE WHEN m.id IS NULL OR p.id IS NULL THEN 'none' ELSE 'a payee' END),
    ('merchant', m.merchant, p.merchant),
    ('holder', m.body ->> 'holder', p.holder),
    ('iban', m.body ->> 'iban', p.iban),
    ('account', m.body ->> 'account', p.account),
    ('bank_code', m.body ->> 'bank_code', p.bank_code),
    ('currency', m.body ->> 'currency', p.currency),
    ('registered_by', m.maker, p.registered_by),
    ('replaces', m.body ->> 'replaces', p.replaces::text),
    ('replaced payee', CASE WHEN p.replaces IS NOT NULL THEN 'disabled' END, r.state)
) AS c (name, expected, actual)
WHERE c.expected IS DISTINCT FROM c.actual AND (c.name = 'row' OR (m.id IS NOT NULL AND p.id IS NOT NULL))
ORDER BY id, c.name LIMIT 100
