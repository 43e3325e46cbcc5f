-- Channels that differ from the last change that was applied to them, or are missing. Rows: the first 100; `total` is the
-- number of all. Locks: none.
WITH last AS (
    SELECT DISTINCT ON (g.subject) g.subject, g.maker, g.body::jsonb AS body
    FROM fund.changes g WHERE g.kind = 'channel' AND g.state = 'applied'
    ORDER BY g.subject, g.decided_at DESC, g.seq DESC
)
SELECT l.subject, l.maker || ' ' || l.body AS expected,
       CASE WHEN c.name IS NULL THEN 'none'
            ELSE format('%s payout %s, references_unique %s, overdraft %s, %s, refund %s', c.registered_by, c.payout,
                        c.references_unique, coalesce(c.overdraft::text, 'none'), c.state, c.refund) END AS actual,
       count(*) OVER () AS total
FROM last l LEFT JOIN fund.channels c ON c.name || ' ' || c.currency = l.subject
WHERE c.name IS NULL OR c.registered_by <> l.maker
   OR (l.body ? 'payout' AND l.body ->> 'payout' <> c.payout)
   OR (l.body ? 'references_unique' AND (l.body ->> 'references_unique')::boolean <> c.references_unique)
   OR (l.body ? 'overdraft' AND (l.body ->> 'overdraft')::bigint IS DISTINCT FROM c.overdraft)
   OR (l.body ? 'refund' AND l.body ->> 'refund' <> c.refund)
   OR (l.body ? 'state' AND l.body ->> 'state' <> c.state)
ORDER BY l.subject LIMIT 100
