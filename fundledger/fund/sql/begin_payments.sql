-- Insert missing fund.payments rows. A payment with a refund, chargeback, dispute or reversal must already have had a row: if
-- this row is missing, no new row is inserted. An existing row is not changed. $1 ids, $2 merchants, $3 seqs, $4
-- amounts, $5 fees, $6 MACs, $7 key version of the MACs, $8 taxes. Rows: none. Locks: the new rows.
INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, mac_key, mac, tax, tax_settled)
SELECT n.id, n.merchant, n.seq, n.amount, n.fee, n.amount, n.fee, $7, n.mac, n.tax, n.tax
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $8::bigint[])
    AS n (id, merchant, seq, amount, fee, mac, tax)
WHERE NOT EXISTS (
    SELECT FROM fund.orders o WHERE o.of_order = n.id AND o.kind IN ('refund', 'chargeback', 'dispute', 'reversal') AND o.state <> 'refused'
)
ORDER BY n.id
ON CONFLICT (order_id) DO NOTHING
