-- What comes back of payments changes by so much. $1 a JSON array of {payment, refunded, refunded_unsettled, fee_waived,
-- fee_returned, charged_back}, each payment once. Rows: none. Locks: these rows.
UPDATE fund.payments p
SET refunded = p.refunded + c.refunded, refunded_unsettled = p.refunded_unsettled + c.refunded_unsettled,
    fee_waived = p.fee_waived + c.fee_waived, fee_returned = p.fee_returned + c.fee_returned,
    charged_back = p.charged_back + c.charged_back
FROM json_to_recordset($1::json) AS c (payment uuid, refunded bigint, refunded_unsettled bigint, fee_waived bigint,
                                       fee_returned bigint, charged_back bigint)
WHERE p.order_id = c.payment
