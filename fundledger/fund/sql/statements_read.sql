-- An imported statement. $1 channel, $2 statement number. Rows: one, or none if the statement is not imported. Locks:
-- none.
SELECT s.digest, s.in_transit, s.module FROM fund.bank_statements s WHERE s.channel = $1::text AND s.statement_no = $2::text
