-- The keys of holds whose MAC is of layout 1, where one of them cannot be read as a whole.
-- $1 id and $2 module after which to read, $3 how many at most. Rows: in the order of id and module. Locks: none.
SELECT h.id, h.module FROM ledger.holds h WHERE h.layout = 1 AND (h.id, h.module) > ($1::text, $2::text) ORDER BY h.id, h.module LIMIT $3
