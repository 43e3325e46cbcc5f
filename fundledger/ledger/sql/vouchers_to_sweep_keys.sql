-- The keys of vouchers whose MAC is of layout 1, where one of them cannot be read as a whole.
-- $1 id and $2 module after which to read, $3 how many at most. Rows: in the order of id and module. Locks: none.
SELECT v.id, v.module FROM ledger.vouchers v WHERE v.layout = 1 AND (v.id, v.module) > ($1::uuid, $2::text) ORDER BY v.id, v.module LIMIT $3
