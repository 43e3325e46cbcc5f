-- Contradictions: lines of bank statements with the outcome `awaited` whose order was refused, bounced or won later, although the
-- bank executed the movement. The line of an own transfer at the bank that it left is right also if it came back. $1 limit. Rows: channel, statement_no, line_no, amount, order, state. Locks:
-- none.
SELECT l.channel, l.statement_no, l.line_no, l.amount, l.order_id, o.state
FROM fund.bank_statement_lines l JOIN fund.orders o ON o.id = l.order_id
WHERE l.outcome = 'awaited' AND o.state IN ('refused', 'bounced', 'won')
  AND NOT (o.kind = 'own_transfer' AND o.state = 'bounced' AND o.counterparty = l.channel AND l.amount < 0)
ORDER BY l.channel, l.statement_no, l.line_no
LIMIT $1::bigint
