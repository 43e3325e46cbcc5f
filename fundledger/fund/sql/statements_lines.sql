-- The results of a statement's lines, ordered by line number. $1 channel, $2 statement number. Rows: one per line.
-- Locks: none.
SELECT l.outcome, l.order_id, l.difference
FROM fund.bank_statement_lines l
WHERE l.channel = $1::text AND l.statement_no = $2::text
ORDER BY l.line_no
