-- The seq up to which order ids may be unkeyed hashes. Rows: one, none if all ids are keyed. Locks: none.
SELECT f.until_seq FROM fund.former_ids f
