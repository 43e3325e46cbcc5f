-- Lines of stored statements of a channel that may equal lines of a new statement. $1 channel, $2 currency, $3
-- references, $4 the bank's references of entries. Rows: ref, amount, entry_ref, value_date, number of equal lines in
-- one statement, and the number of these without an order. Lines with the outcome `repeated` do not count. Locks: none.
WITH named AS (
    SELECT l.statement_no, l.line_no, l.ref, l.amount, l.entry_ref, l.value_date, l.outcome
    FROM fund.bank_statement_lines l WHERE l.channel = $1::text AND l.ref = ANY($3::text[])
    UNION
    SELECT l.statement_no, l.line_no, l.ref, l.amount, l.entry_ref, l.value_date, l.outcome
    FROM fund.bank_statement_lines l WHERE l.channel = $1::text AND l.entry_ref = ANY($4::text[])
)
SELECT n.ref, n.amount, n.entry_ref, n.value_date, count(*) AS lines, count(*) FILTER (WHERE n.outcome = 'unknown') AS unknown
FROM named n JOIN fund.bank_statements s ON s.channel = $1::text AND s.statement_no = n.statement_no
WHERE s.currency = $2::text AND n.outcome <> 'repeated'
GROUP BY n.statement_no, n.ref, n.amount, n.entry_ref, n.value_date
