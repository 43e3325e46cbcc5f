-- What refused settlements would have settled is pending again. $1 ids of settlements. Rows: none. Locks: their payments.
UPDATE fund.payments p SET settled = p.settled - s.amount, fee_settled = p.fee_settled - s.fee
FROM (SELECT x.payment, sum(x.amount)::bigint AS amount, sum(x.fee)::bigint AS fee
      FROM fund.settled_payments x WHERE x.settlement = ANY ($1::uuid[]) GROUP BY x.payment) s
WHERE p.order_id = s.payment
