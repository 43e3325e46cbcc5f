-- Every hold. Rows: one per hold. Locks: none.
SELECT h.id, h.account_number, h.slot, h.amount, h.captured, h.status, h.refusal, h.created_at, h.expires_at, h.ended_at,
       h.key_version, h.mac
FROM ledger.holds h
