-- Read the keys of vouchers whose MAC has layout 1. The query is used if a row of the page cannot be decoded.
-- $1 id and $2 module after which to read, $3 maximum number of rows. Rows: ordered by id and module. Locks: none.
SELECT v.id, v.module FROM ledger.vouchers v WHERE v.layout = 1 AND (v.id, v.module) > ($1::uuid, $2::text) ORDER BY v.id, v.module LIMIT $3
