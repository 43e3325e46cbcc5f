-- Vouchers that do not have exactly one outbox row, vouchers whose outbox row has another shard, batch or time, and
-- outbox rows without a voucher. Vouchers older than the outbox (migration 5) have no outbox row. Rows: the first 100;
-- `total` is the number of all. Locks: none.
WITH events AS (
    SELECT v.id, v.named, count(*) AS times, min(o.shard) AS shard, min(o.batch) AS batch, min(o.at) AS at
    FROM (
        -- One module may stand for all vouchers. Rows that were written before modules were recorded have none.
        SELECT b.*, CASE WHEN cardinality(b.modules) = 1 THEN b.modules[1] END AS module
        FROM ledger.outbox b OFFSET 0 -- computed once for each row
    ) AS o CROSS JOIN LATERAL (
        SELECT l.id, coalesce(o.module, l.module, '') AS named
        FROM ROWS FROM (unnest(o.vouchers), unnest(o.modules)) AS l (id, module)
    ) AS v GROUP BY v.id, v.named
)
SELECT coalesce(v.id, e.id) AS id, coalesce(v.module, e.named) AS module,
       CASE WHEN v.id IS NULL THEN 'a voucher' ELSE format('one entry: shard %s, batch %s, %s', v.shard, v.batch, v.posted_at) END AS expected,
       CASE WHEN e.id IS NULL THEN 'none' WHEN v.id IS NULL THEN 'an entry in the outbox'
            ELSE format('%s: shard %s, batch %s, %s', e.times, e.shard, e.batch, e.at) END AS actual,
       count(*) OVER () AS total
FROM ledger.vouchers v FULL JOIN events e ON e.id = v.id AND e.named = CASE WHEN v.shared_id THEN '' ELSE v.module END
WHERE (v.shard, v.batch, v.posted_at, 1) IS DISTINCT FROM (e.shard, e.batch, e.at, e.times)
  AND NOT (e.id IS NULL AND v.posted_at < (SELECT m.applied_at FROM public.fundledger_migrations m WHERE m.number = 5))
ORDER BY 1 LIMIT 100
