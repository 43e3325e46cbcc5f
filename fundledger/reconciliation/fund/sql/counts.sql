-- Row counts of the fund database. Rows: one. Locks: none.
SELECT (SELECT count(*) FROM fund.orders) AS orders, (SELECT count(*) FROM fund.payments) AS payments,
       (SELECT count(*) FROM fund.withdrawal_days) AS withdrawal_days, (SELECT count(*) FROM fund.events) AS events
