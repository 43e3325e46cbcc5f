-- Every row of fund.payees, with its MAC. Rows: all. Locks: none.
SELECT p.seq, p.id, p.merchant, p.holder, p.iban, p.account, p.bank_code, p.currency, p.state, p.registered_by, p.created_at,
       p.usable_from, p.replaces, p.disabled_at, p.disabled_by, p.disabled_why, p.mac_key, p.mac
FROM fund.payees p
