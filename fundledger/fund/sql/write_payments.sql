-- Write the progress of payments. The caller holds the locks of the rows. $1 ids, $2 settled, $3 fee_settled, $4
-- refunded, $5 refunded_unsettled, $6 fee_waived, $7 fee_returned, $8 charged_back, $9 charged_back_unsettled, $10 reversed,
-- $11 MACs, $12 key version of the MACs, $13 tax_settled, $14 tax_returned. Rows: none. Locks: these rows.
UPDATE fund.payments p
SET settled = n.settled, fee_settled = n.fee_settled, refunded = n.refunded, refunded_unsettled = n.refunded_unsettled,
    fee_waived = n.fee_waived, fee_returned = n.fee_returned, charged_back = n.charged_back,
    charged_back_unsettled = n.charged_back_unsettled, reversed = n.reversed, tax_settled = n.tax_settled, tax_returned = n.tax_returned,
    mac = n.mac, mac_key = $12
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::boolean[], $11::bytea[], $13::bigint[], $14::bigint[])
    AS n (id, settled, fee_settled, refunded, refunded_unsettled, fee_waived, fee_returned, charged_back, charged_back_unsettled,
          reversed, mac, tax_settled, tax_returned)
WHERE p.order_id = n.id
