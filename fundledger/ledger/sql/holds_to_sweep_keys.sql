-- Read the keys of holds whose MAC has layout 1. The query is used if a row of the page cannot be decoded.
-- $1 id and $2 module after which to read, $3 maximum number of rows. Rows: ordered by id and module. Locks: none.
SELECT h.id, h.module FROM ledger.holds h WHERE h.layout = 1 AND (h.id, h.module) > ($1::text, $2::text) ORDER BY h.id, h.module LIMIT $3
