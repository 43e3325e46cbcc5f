-- Lock merchants, to serialize their settlements and withdrawals. $1 ids. Rows: one per merchant. Locks: these
-- merchants.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.state, m.settlement_days,
       m.settlement_cut, m.settlement_region, m.final_channel, m.final_payee, m.rolling_basis_points,
       m.rolling_days, m.rolling_from, m.version, m.mac_key, m.mac
FROM fund.merchants m WHERE m.id = ANY ($1::text[])
ORDER BY m.id -- one lock order prevents deadlocks
FOR NO KEY UPDATE
