-- The seq up to which orders may have unkeyed ids. Rows: one, or none if all ids are keyed. Locks: none.
SELECT f.until_seq FROM fund.former_ids f
