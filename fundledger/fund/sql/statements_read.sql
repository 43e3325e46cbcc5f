-- An imported statement. $1 channel, $2 number. Rows: one or none. Locks: none.
SELECT s.digest, s.in_transit FROM fund.bank_statements s WHERE s.channel = $1::text AND s.statement_no = $2::text
