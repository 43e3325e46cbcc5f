-- Write the parts of split orders: their set-offs and debts, and what came back of them. The caller holds the locks of the
-- rows, or of their orders. $1 orders, $2 merchants, $3 set-offs, $4 amounts that the merchants owe, $5 set-offs of the end, $6
-- refunded, $7 fee_returned, $8 tax_returned, $9 charged_back, $10 reversed, $11 MACs, $12 key version of the MACs. Rows: none.
-- Locks: these rows.
UPDATE fund.split_parts p
SET set_off = n.set_off, to_receivable = n.to_receivable, end_set_off = n.end_set_off, refunded = n.refunded, fee_returned = n.fee_returned,
    tax_returned = n.tax_returned, charged_back = n.charged_back, reversed = n.reversed, mac = n.mac, mac_key = $12
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::boolean[], $11::bytea[])
    AS n (order_id, merchant, set_off, to_receivable, end_set_off, refunded, fee_returned, tax_returned, charged_back, reversed, mac)
WHERE p.order_id = n.order_id AND p.merchant = n.merchant
