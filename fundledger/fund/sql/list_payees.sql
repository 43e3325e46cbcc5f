-- Payees of a merchant, in the sequence of their registration. $1 merchant, $2 seq to start after, $3 limit. Rows: at most
-- $3. Locks: none.
SELECT p.seq, p.id, p.merchant, p.holder, p.iban, p.account, p.bank_code, p.currency, p.state, p.registered_by, p.created_at,
       p.usable_from, p.replaces, p.disabled_at, p.disabled_by, p.disabled_why, p.mac_key, p.mac
FROM fund.payees p WHERE p.merchant = $1 AND p.seq > $2 ORDER BY p.seq LIMIT $3
