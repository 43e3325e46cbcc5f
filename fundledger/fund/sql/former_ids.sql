-- Up to which seq the ids of orders may be unkeyed hashes. Rows: one, none where all ids are keyed. Locks: none.
SELECT f.until_seq FROM fund.former_ids f
