-- Changes of merchants and of fees that two identities did not decide. There are three cases: an event names a change that was not
-- applied to its merchant by the same identities, an event changed the withdrawal limit without a change, or a fee rule that is newer
-- than approvals of fee rules has no event. Rows: the first 100; `total` is the number of all. Locks: none.
WITH told AS (
    SELECT e.merchant, e.version, e.what, e.by, e.approved_by, e.change,
           CASE WHEN e.body IS JSON OBJECT THEN e.body::jsonb ELSE '{}' END AS body
    FROM fund.merchant_events e
), differences AS (
    SELECT format('event %s of merchant %s', t.version, t.merchant) AS what,
           format('change %s, requested by %s, approved by %s', t.change, t.by, t.approved_by) AS expected,
           coalesce(format('%s %s, %s, requested by %s, decided by %s', g.kind, g.subject, g.state, g.maker, g.checker), 'none') AS actual
    FROM told t LEFT JOIN fund.changes g ON g.id = t.change
    WHERE t.change IS NOT NULL AND (g.id IS NULL OR g.kind NOT IN ('merchant', 'fee_rule') OR g.state <> 'applied'
        OR split_part(g.subject, ' ', 1) <> t.merchant OR g.maker <> t.by OR g.checker <> t.approved_by)
    UNION ALL
    SELECT format('event %s of merchant %s', t.version, t.merchant), 'an approved change of the withdrawal limit', 'no change'
    FROM told t WHERE t.change IS NULL AND t.what <> 'created' AND t.body ? 'withdrawal_limit'
    UNION ALL
    SELECT format('fee rule %s', f.version), 'an event with an approved change', 'none'
    FROM fund.fee_rules f
    WHERE f.merchant IS NOT NULL AND f.effective_at > '1970-01-01Z'
      AND f.created_at > (SELECT g.applied_at FROM public.fundledger_fund_migrations g WHERE g.number = 21)
      AND NOT EXISTS (
          SELECT FROM told t CROSS JOIN LATERAL jsonb_each(t.body) b
          WHERE t.merchant = f.merchant AND t.change IS NOT NULL AND b.key IN ('fee', 'withdrawal_fee', 'fee_rule')
            AND b.value ->> 'version' = f.version::text)
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.what, x.expected LIMIT 100
