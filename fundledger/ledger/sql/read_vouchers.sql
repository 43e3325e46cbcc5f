-- Read vouchers and the ids of their reversals.
-- $1 voucher ids. Rows: one for each id and each module that has posted a voucher with this id. Locks: none.
SELECT v.id, v.type, v.digest, v.lines, v.reference, v.metadata, v.hold, v.reverses, v.refusal, v.batch,
       v.accounting_date, v.posted_at, v.key_version, v.mac, v.layout, v.module, v.shared_id,
       (SELECT r.id FROM ledger.vouchers r WHERE r.reverses = v.id AND r.module = v.module AND r.refusal IS NULL) AS reversed_by
FROM ledger.vouchers v WHERE v.id = ANY ($1::uuid[])
