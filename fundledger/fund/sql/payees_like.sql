-- The active payees of a merchant, without one that is to be replaced. $1 merchant, $2 currency, $3 IBAN or account number,
-- $4 bank code or an empty text, $5 payee to be replaced or null. Rows: one: `id` of the payee with this account or null,
-- `active`, the number of active payees. Locks: none.
SELECT (array_agg(p.id) FILTER (WHERE p.currency = $2::text AND coalesce(p.iban, p.account) = $3::text
                                AND coalesce(p.bank_code, '') = $4::text))[1] AS id,
       count(*) AS active
FROM fund.payees p
WHERE p.merchant = $1::text AND p.state = 'active' AND p.id IS DISTINCT FROM $5::uuid
