-- The different rules by which open merchants are settled automatically. Rows: calendar, settlement days (-1: none), settlement cut
-- (empty: none) and region, one per rule. Locks: none.
SELECT DISTINCT m.settlement, coalesce(m.settlement_days, -1) AS days, coalesce(m.settlement_cut, '') AS cut,
       coalesce(m.settlement_region, m.currency) AS region
FROM fund.merchants m WHERE m.settlement <> 'manual' AND m.state = 'open'
