-- Insert the parts of split orders, in the transaction that inserts the orders. $1 orders, $2 merchants, $3 kinds, $4 seqs of
-- the orders, $5 amounts, $6 fees, $7 taxes, $8 set-offs, $9 amounts that the merchants owe, $10 MACs, $11 key version of the
-- MACs. Rows: none. Locks: the new rows.
INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, set_off, to_receivable, mac_key, mac)
SELECT n.order_id, n.merchant, n.kind, n.seq, n.amount, n.fee, n.tax, n.set_off, n.to_receivable, $11, n.mac
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::bytea[]) AS n (order_id, merchant, kind, seq, amount, fee, tax, set_off, to_receivable, mac)
