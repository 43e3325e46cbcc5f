-- Payees, which are not disabled before the transaction ends. $1 ids. Rows: one per payee that exists. Locks: these
-- payees, shared.
SELECT p.seq, p.id, p.merchant, p.holder, p.iban, p.account, p.bank_code, p.currency, p.state, p.registered_by, p.created_at,
       p.usable_from, p.replaces, p.disabled_at, p.disabled_by, p.disabled_why, p.mac_key, p.mac
FROM fund.payees p WHERE p.id = ANY ($1::uuid[])
ORDER BY p.id -- one lock order prevents deadlocks
FOR SHARE
