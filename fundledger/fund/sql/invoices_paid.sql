-- Payments of invoices of channels. A payment counts if it is approved, and neither refused nor reversed. $1 invoices. Rows: one per
-- such payment. Locks: none. The caller holds the locks of the invoices, under which each payment is approved.
SELECT {order}
FROM fund.orders o LEFT JOIN fund.orders r ON r.id = o.reversed_by
WHERE o.of_order = ANY ($1::uuid[]) AND o.kind = 'payable_payment'
  AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND r.state IS DISTINCT FROM 'posted'
