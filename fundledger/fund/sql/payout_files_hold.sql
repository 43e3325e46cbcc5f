-- Lock withdrawals that are to be paid out, as they were read. $1 channel, $2 currency, $3 orders, $4 their MACs as read. Rows:
-- the locked ones, oldest first. Locks: these orders. Orders that are already locked, or have changed, are skipped.
SELECT o.id
FROM unnest($3::uuid[], $4::bytea[]) AS c (id, mac)
JOIN fund.orders o ON o.id = c.id AND o.mac = c.mac
WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
  AND o.currency = $2::text AND o.payee IS NOT NULL
ORDER BY o.seq
FOR UPDATE OF o SKIP LOCKED
