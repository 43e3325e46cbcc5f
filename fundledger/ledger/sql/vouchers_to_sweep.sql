-- Read vouchers whose MAC has layout 1. `reversed_module`: the module of the voucher that the row's voucher reverses.
-- $1 id and $2 module after which to read, $3 maximum number of rows. Rows: ordered by id and module. Locks: none.
SELECT v.id, v.type, v.digest, v.lines, v.reference, v.metadata, v.hold, v.reverses, v.refusal, v.batch,
       v.accounting_date, v.posted_at, v.key_version, v.mac, v.layout, v.module, v.shared_id,
       (SELECT min(o.module) FROM ledger.vouchers o WHERE o.id = v.reverses AND o.shared_id) AS reversed_module
FROM ledger.vouchers v WHERE v.layout = 1 AND (v.id, v.module) > ($1::uuid, $2::text) ORDER BY v.id, v.module LIMIT $3
