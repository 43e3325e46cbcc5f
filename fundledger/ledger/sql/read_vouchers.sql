-- The records of vouchers, and what reversed them.
-- $1 voucher ids. Rows: one per id that exists. Locks: none.
SELECT v.id, v.type, v.digest, v.lines, v.reference, v.metadata, v.hold, v.reverses, v.refusal, v.batch,
       v.accounting_date, v.posted_at, v.key_version, v.mac,
       (SELECT r.id FROM ledger.vouchers r WHERE r.reverses = v.id AND r.refusal IS NULL) AS reversed_by
FROM ledger.vouchers v WHERE v.id = ANY ($1::uuid[])
