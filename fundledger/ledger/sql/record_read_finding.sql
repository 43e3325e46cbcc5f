-- What a read found not to verify, unless the same was found before.
-- $1 shard, $2 account number, $3 slot, $4 evidence. Rows: none. Locks: none.
INSERT INTO ledger.integrity_findings (shard, account_number, slot, evidence)
SELECT $1, $2, $3, $4::json
WHERE NOT EXISTS (
    SELECT FROM ledger.integrity_findings f
    WHERE f.account_number = $2 AND f.slot = $3 AND f.evidence::text = $4::json::text
)
