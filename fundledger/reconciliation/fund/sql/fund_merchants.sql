-- Every row of fund.merchants, with its MAC. Rows: all. Locks: none.
SELECT m.id, m.name, m.currency, m.withdrawal_limit, m.settlement, m.digest, m.created_at, m.state, m.settlement_days,
       m.settlement_cut, m.settlement_region, m.final_channel, m.final_payee, m.rolling_basis_points,
       m.rolling_days, m.rolling_from, m.version, m.mac_key, m.mac
FROM fund.merchants m
