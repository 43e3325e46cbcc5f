-- Every voucher. Rows: one per voucher. Locks: none.
SELECT v.id, v.type, v.digest, v.lines, v.reference, v.metadata, v.hold, v.reverses, v.refusal, v.batch,
       v.accounting_date, v.posted_at, v.key_version, v.mac
FROM ledger.vouchers v
