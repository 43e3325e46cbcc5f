-- Merchants that differ from their events. There are two cases: a merchant has another number of events than its version, or a member
-- has another value than after the last event that changed it. Rows: the first 100; `total` is the number of all. Locks: none.
WITH told AS (
    SELECT e.merchant, count(*) AS events, max(e.version) AS last FROM fund.merchant_events e GROUP BY e.merchant
), members AS (
    SELECT DISTINCT ON (e.merchant, b.key) e.merchant, b.key, b.value -> 'to' AS value
    FROM fund.merchant_events e
    CROSS JOIN LATERAL jsonb_each(CASE WHEN e.body IS JSON OBJECT THEN e.body::jsonb ELSE '{}' END) b
    WHERE b.key IN ('name', 'withdrawal_limit', 'settlement', 'settlement_days', 'settlement_cut', 'settlement_region', 'state',
                    'final_channel', 'final_payee', 'rolling_basis_points', 'rolling_days', 'rolling_from')
    ORDER BY e.merchant, b.key, e.version DESC
), differences AS (
    SELECT coalesce(m.id, t.merchant) AS merchant, 'events' AS what, coalesce(m.version::text, 'none') AS expected,
           format('%s, the last is %s', coalesce(t.events, 0), coalesce(t.last, 0)) AS actual
    FROM fund.merchants m FULL JOIN told t ON t.merchant = m.id
    WHERE m.version IS DISTINCT FROM coalesce(t.events, 0) OR m.version IS DISTINCT FROM coalesce(t.last, 0)
    UNION ALL
    SELECT n.merchant, n.key, n.value::text, (to_jsonb(m) -> n.key)::text
    FROM members n JOIN fund.merchants m ON m.id = n.merchant
    WHERE n.value IS DISTINCT FROM to_jsonb(m) -> n.key
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.merchant, x.what LIMIT 100
