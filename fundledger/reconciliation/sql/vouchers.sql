-- All vouchers. Rows: one per voucher. Locks: none.
SELECT v.id, v.type, v.digest, v.lines, v.reference, v.metadata, v.hold, v.reverses, v.refusal, v.batch,
       v.accounting_date, v.posted_at, v.key_version, v.mac, v.layout, v.module, v.shared_id
FROM ledger.vouchers v
